"""Personal data taken out of what people wrote before a model learns from it: addresses, numbers, keys.

Patterns find what has a form; names and addresses in prose have none, and stay. A mask says what was there, so that
the sentence around it still reads.
"""

from __future__ import annotations

import re
from collections.abc import Callable

EMAIL, PHONE, CARD, KEY = "[email]", "[phone]", "[card]", "[key]"

_KEYS = re.compile(
    r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----.{0,8000}?-----END [A-Z ]{0,30}PRIVATE KEY-----"
    r"|\beyJ[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,2000}\.[A-Za-z0-9_-]{10,2000}"
    r"|\b(?:sk|pk|rk|tut|hf|glpat|npm|pypi)[-_](?=[A-Za-z0-9_-]*\d)[A-Za-z0-9_-]{16,200}"
    r"|\bgh[oprsu]_[A-Za-z0-9]{20,200}"
    r"|\bxox[abprs]-[A-Za-z0-9-]{10,200}"
    r"|\bAKIA[0-9A-Z]{16}\b"
    r"|\bAIza[A-Za-z0-9_-]{35}",
    re.DOTALL,
)
_EMAILS = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
_CARDS = re.compile(r"(?<![\d.,-])\d(?:[ -]?\d){12,18}(?![\d])")
# A number is a telephone's when it begins like one: +, (, 00 or 0; or is grouped as three, three and four.
_PHONES = re.compile(
    r"(?<![\w.,/-])"
    r"(?:(?:\+|00)\d{1,3}(?:[ .()-]{0,3}\d){6,13}"
    r"|\(0?\d{1,4}\)[ .-]?\d(?:[ .-]?\d){5,9}"
    r"|0\d{1,4}[ -]\d(?:[ -]?\d){5,9}"
    r"|09\d{8}"
    r"|\d{3}[ .-]\d{3}[ .-]\d{4})"
    r"(?![\w-])"
)


def mask(text: str) -> str:
    """The text with personal data of a known form replaced; masking twice changes nothing more."""
    text = _KEYS.sub(KEY, text)
    text = _EMAILS.sub(EMAIL, text)
    text = _CARDS.sub(_where(_valid_card, CARD), text)
    return _PHONES.sub(PHONE, text)


def _where(wanted: Callable[[str], bool], replacement: str) -> Callable[[re.Match[str]], str]:
    return lambda match: replacement if wanted(match[0]) else match[0]


def _valid_card(text: str) -> bool:
    """Whether the digits end in the check digit of a payment card (Luhn)."""
    digits = [int(each) for each in text if each.isdigit()]
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0
