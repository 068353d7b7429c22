"""What is wrong with an edit's parameters is named."""

from __future__ import annotations

import re

import pytest

from microtome import edit
from microtome.errors import EditError


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scale L0.z", "factor is missing."),
        ("replace L0.z", "value is missing."),
        ("add() L0.z", "vector is missing."),
        ("scale(by=2) L0.z", "there is no 'by'; its parameters: factor."),
        ("scale(facotr=2) L0.z", "Did you mean 'factor'?"),
        ("scale(1, 2) L0.z", "2 is one too many."),
        ("scale(1, factor=2) L0.z", "factor is given twice."),
        ("zero(1) L0.z", "1 is one too many."),
        ("zero(by=1) L0.z", "there is no 'by'; it takes none."),
    ],
)
def test_the_wrong_parameter_is_named(text, words):
    with pytest.raises(EditError, match=re.escape(words)) as refused:
        edit(text)
    assert "Form: " in str(refused.value)
    assert text in str(refused.value)


def test_a_layer_given_twice_is_refused():
    with pytest.raises(EditError, match="each given once; cannot read"):
        edit("add({0: [1.0], 0: [2.0]}) L*.resid_post")
