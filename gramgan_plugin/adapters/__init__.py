"""Other hosts over the same losses and the same step: MMEngine, and so MMagic. Imports neither basicsr nor mmagic."""
