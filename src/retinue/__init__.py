"""Retinue turns a computer-vision model into a running production system on one machine."""

__version__ = "0.1.0"
