"""The training step and the loss terms it sums, over any networks; knows no framework around it."""
