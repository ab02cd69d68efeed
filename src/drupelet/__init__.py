"""Drupelet ships generative models to fleets of Raspberry Pis, and takes a bad release back by itself."""

__version__ = "0.1.0"
