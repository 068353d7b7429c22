import sys, time
import pytest, torch, re
import microtome as mt
from microtome.errors import VerificationError
from oracles import families as by_hand
from oracles.families import FAMILIES
import pytest

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
MARY = mt.Prompt(
    "When Mary and John went to the store",
    donor="When John and Mary gave to the store",
    target=" Mary",
    contrast=" John",
)
QS = (
    "patch L*.z.h*@-1",
    "zero L*.z.h*",
    "scale(1.5) L*.resid_post@*",
    "zero L*.resid_post@-1",
    "zero L*.mlp_post.n*@-1",
    "zero L*.z.h*@*",
    "scale(8) L*.attn_out",
    "noise L*.resid_pre@3",
    "knockout L*.pattern.h*@-1,1",
)


def test_alarm(tokenizer):
    alarms = 0
    total = 0
    for name in FAMILIES:
        for dt in (torch.bfloat16, torch.float32):
            try:
                model = mt.load(by_hand.make(name, len(tokenizer)).to(dt), tokenizer=tokenizer)
            except Exception as e:
                print(name, dt, "LOAD", type(e).__name__, str(e)[:100])
                continue
            res = []
            for q in QS:
                for seed in range(1):
                    try:
                        e = mt.sweep(
                            model,
                            [CAT, MARY],
                            q,
                            metrics=[
                                "logit_diff",
                                "kl",
                                "rank",
                                "top1",
                                "prob",
                                "logit_corr",
                                "norm(L*.resid_post)",
                                "cosine(L*.resid_post@1, 5)",
                            ],
                            seed=seed,
                            progress=False,
                            verify="all",
                            engine="walk",
                        )
                        v = e.provenance["verification"]
                        total += v["cells"]
                        res.append(
                            f"{v['largest_difference'] / v['tolerance']:.2f}({v['noise']:.1g})"
                        )
                    except VerificationError as err:
                        alarms += 1
                        res.append("ALARM")
                        print(name, dt, q, str(err)[:330])
                    except Exception as err:
                        res.append(type(err).__name__)
                        if type(err).__name__ not in ("AddressError",):
                            print(name, dt, q, type(err).__name__, str(err)[:200])
            print(name, str(dt)[6:], res, flush=True)
    print("alarms", alarms, "cells", total)
