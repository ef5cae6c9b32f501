"""Optimizers and schedulers as torch objects."""
