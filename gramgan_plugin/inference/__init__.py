"""Upscale pictures and videos by a trained network. Imports no basicsr."""
