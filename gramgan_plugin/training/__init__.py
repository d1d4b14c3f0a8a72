"""The loop around a model: run folder, data order, logs, validation. Any BasicSR model class trains in it."""
