"""An independent adversary of the solver: random graphs, their plain meaning, an exhaustive search for the best plan.

Nothing here imports bnfold. A graph is described by a `Spec` (spec.py); from it alone come its values (naive.py), its
ONNX model (to_onnx.py) and the largest set of BatchNorms that can vanish (feasible.py). Random ones are drawn by
strategy.py (moves.py, traps.py); examples.py holds those whose best plan is known by hand.
"""
