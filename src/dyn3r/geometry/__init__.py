"""Geometry that every stage may import: cameras, registration, flow, gravity, visibility."""
