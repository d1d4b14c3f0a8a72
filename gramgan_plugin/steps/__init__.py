"""The training step and the loss terms it sums, over any networks and without any framework."""
