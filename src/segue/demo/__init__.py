"""The tour: a real application, deployed over and over while an independent client counts what users see."""

from segue.demo.tour import main

__all__ = ["main"]
