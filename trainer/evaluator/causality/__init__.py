"""Static proof that logits depend on no later token and on no other row. TRUSTED.

docs/causality.md states the rules, their side conditions and the soundness argument.
"""

from trainer.evaluator.causality.proof import Proof, prove

__all__ = ["Proof", "prove"]
