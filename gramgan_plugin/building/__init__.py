"""Build what a training step needs from option blocks: losses with their files opened, precision; for any host."""
