"""Seeds as people write them."""

import pytest

from fracgpu.errors import SettingError
from replay.seeds import parse_seeds


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("42", [42]),
        ("42-45", [42, 43, 44, 45]),
        ("1,5, 9-12", [1, 5, 9, 10, 11, 12]),
        ("7-7", [7]),
        ("9,3,9,2-4", [9, 3, 2, 4]),
        ("0-999", list(range(1000))),
    ],
)
def test_seeds_are_read_in_their_order(text: str, want: list[int]) -> None:
    assert parse_seeds(text) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("", "has ''"),
        ("1,,2", "has ''"),
        ("-3", "has '-3'"),
        ("1.5", "has '1.5'"),
        ("٤", "whole numbers"),
        ("51-42", "write 42-51"),
        ("0-1000", "more than 1000"),
        ("0-999999999999999999", "more than 1000"),
        ("0-999,5000", "more than 1000"),
        ("9" * 30, "whole numbers"),
    ],
)
def test_what_is_no_seed_is_told(text: str, want: str) -> None:
    with pytest.raises(SettingError, match="--seeds") as caught:
        parse_seeds(text)
    assert want in str(caught.value)
