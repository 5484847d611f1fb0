"""Measures of the repository itself: size, functions, annotation, English, repeated lines."""
