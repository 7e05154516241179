"""How do logs become a model, and how good is it?

Events → examples → model → metrics, with the baselines that a model has to beat.
"""
