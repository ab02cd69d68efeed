"""What a recipe's variants would cost and give on each board, before anything is made. Every number is a prediction.

Decoding reads all weights once a token, and a Pi's processor waits for its memory: so tokens a second follow from the
bytes a token reads and the bandwidth that inference really gets. Memory is weights, keys and values, buffers and the
process itself. Quality is what an evaluation measured, where one is given, and else what others measured.
"""

from drupelet.forge.plan.boards import BOARDS, Board
from drupelet.forge.plan.plan import Plan, make_plan

__all__ = ["BOARDS", "Board", "Plan", "make_plan"]
