"""Everything two processes of echomimic-live must agree on: messages, hops, results, settings.

`protocol/SPEC.md` is the one-page description. This package imports none of the stages.
"""
