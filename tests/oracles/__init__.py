"""Slow or published implementations that the product is tested against."""
