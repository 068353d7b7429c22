"""Which other approximation a map is held against, to see where it is in doubt.

Where two approximations say different things, one of them at least is wrong. They are chosen such
that what makes them differ is what the first is known to miss: of a query or key the saturation of
the softmax, which `AtPStar` computes again; elsewhere the curvature of the way to the edited
values, half of which `IG` of one step has gone; of edges that of the way from the donor's input.
"""

from __future__ import annotations

from microtome.engines.approximate.atp import AtP
from microtome.engines.approximate.atp_star import BEFORE_SOFTMAX, AtPStar
from microtome.engines.approximate.eap import EAP, EAPIG
from microtome.engines.approximate.integrated import IG, GradientNorms
from microtome.engines.approximate.method import Method
from microtome.errors import MetricError, SweepError
from microtome.plan.audit import Audit
from microtome.plan.question import Question


def other_of(method: Method, question: Question, audit: Audit) -> Method | None:
    """The approximation that a map is held against; None where it is not refined, or none can."""
    if not audit.refines:
        return None
    return next((one for one in _candidates(method, question) if _takes(one, question)), None)


def _candidates(method: Method, question: Question) -> tuple[Method, ...]:
    if isinstance(method, EAP):
        return (EAPIG(),)
    if isinstance(method, EAPIG):
        return (EAP(),)
    if isinstance(method, GradientNorms):  # sizes without signs are no effects
        return ()
    if method != AtP():
        return (AtP(),)
    if any(edit.address.site.name in BEFORE_SOFTMAX for edit in question.edits):
        return (AtPStar(grad_drop=False),)
    return (IG(steps=1),)


def _takes(method: Method, question: Question) -> bool:
    """Whether a method takes a question: what it cannot, it refuses."""
    try:
        method.check(question)
    except (SweepError, MetricError):
        return False
    return True
