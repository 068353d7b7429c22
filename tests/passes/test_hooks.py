"""What a pass puts around itself."""

import gc

import torch

from microtome.passes.hooks import quiet


def test_what_an_interrupt_left_behind_switches_no_gradients_on_later(tiny):
    left = quiet(tiny.hf)
    left.__enter__()  # and an interrupt came before its end
    torch.set_grad_enabled(True)  # as the session around it does
    with quiet(tiny.hf):
        del left
        gc.collect()
        assert not torch.is_grad_enabled()
    assert torch.is_grad_enabled()
