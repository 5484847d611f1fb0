"""Fuzzing: every decoder of bytes and texts from outside, with input that hypothesis makes.

A decoder may refuse an input with the errors that its documentation names. It may raise nothing else, take no
longer than a few seconds, and keep no memory.
"""
