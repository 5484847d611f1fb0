"""Avatars that people bring while the gateway runs.

A picture's way: `service` takes the request, `reader` has a process of its own decode the picture, `shelf`
keeps it, `preview` has the stages animate it, and `fit` says how much of it they carried.
"""
