"""Spellings of Kubernetes quantities, and what they mean; also tried on a real kube-apiserver (tests/deploy).

The cases follow what apimachinery's own table tries: every suffix, every form of exponent, fractions of binary
suffixes, and what "trolls" write.
"""

from fractions import Fraction

VALID: dict[str, Fraction | int] = {
    "0": 0, "00": 0, "0Ki": 0, "0n": 0, "-0": 0,
    "1": 1, "+1": 1, "-1": -1, "007": 7, "300": 300,
    "1Ki": 2**10, "8Ki": 2**13, "7Mi": 7 * 2**20, "4Gi": 2**32, "5Ti": 5 * 2**40, "4Pi": 2**52, "3Ei": 3 * 2**60,
    "5n": Fraction(5, 10**9), "4u": Fraction(4, 10**6), "3m": Fraction(3, 1000), "100m": Fraction(1, 10),
    "8k": 8000, "500M": 5 * 10**8, "6G": 6 * 10**9, "5T": 5 * 10**12, "2P": 2 * 10**15, "1E": 10**18,
    "1e3": 1000, "1E3": 1000, "1E-3": Fraction(1, 1000), "1.3E+6": 1_300_000, "0.5e-1": Fraction(1, 20), "1e0": 1,
    "1.5Gi": 3 * 2**29, "0.5Mi": 2**19, "0.05Gi": Fraction(2**30, 20), "100.035Ki": Fraction(10243584, 100),
    "100.035k": 100_035, "0.00050k": Fraction(1, 2), "1.01E": 1_010_000_000_000_000_000, "-1.5Gi": -3 * 2**29,
    ".5": Fraction(1, 2), ".001": Fraction(1, 1000), ".5Gi": 2**29, "1.": 1, "1.G": 10**9, "+.5": Fraction(1, 2),
    "1000000000000000000000": 10**21,
}  # fmt: skip
"""Spelling -> base units."""

INVALID = (
    "", " ", " 1", "1 ", "4 Gi", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i", "-3.01e-",
    "4GB", "4gi", "4gb", "4GiB", "1K", "1g", "1e", "1e+", "1e1.5", "1Gi2", "1EE", "1kk", "0x10", "1_000", "1,5Gi",
    "--1", "+-1", "NaN", "nan", "inf", "-inf", "Infinity", "½", "٤Gi", "４Gi", "4Gi\n", "\x004Gi",
)  # fmt: skip

STRICTER = (".", "+", "-", "-.", "Ki", "k", ".Gi", "e3")
"""A number without a digit: apimachinery takes it for 0, and we for the mistake that it is."""

OUT_OF_RANGE = ("1e31", "1e-31", "1e999999999", "1E-999999999", "1e9999999999", "9" * 65)
"""Quantities by the grammar, but of nothing that exists; reading them exactly could take for ever."""
