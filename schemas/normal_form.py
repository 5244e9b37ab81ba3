"""The normal form of identifiers, names and countries, in which both halves store, compare and look them up.

An identifier or a name is trimmed and in Unicode's form NFC, so that a person is the same person however their identifier was typed.
Upper and lower case stay significant: `A1` and `a1` are two customers. A country is in upper case besides. Nothing else of the service or
the ledger changes an identifier.
"""

from unicodedata import normalize

_TRIMMED = """
0000-0020 007F-00A0 00AD 034F 0600-0605 061C 06DD 070F 0890-0891 08E2 115F-1160 1680 17B4-17B5 180B-180F 2000-200F 2028-202F 205F-206F
2800 3000 3164 FE00-FE0F FEFF FFA0 FFF0-FFFB 110BD 110CD 13430-1343F 1BCA0-1BCA3 1D173-1D17A E0000-E0FFF
"""
# A table of its own: Python's and the engines' Unicode differ by version, and a stored token depends on it.
TRIMMED_RANGES = tuple((int(first, 16), int(last or first, 16)) for first, _, last in (text.partition("-") for text in _TRIMMED.split()))
"""First and last code points of the characters that are removed at both ends, because nobody sees them there.

Unicode's white space, control characters (Cc), format characters (Cf), variation selectors and all other ignorable code points, and the
blank of Braille.
"""
TRIMMED_CHARACTERS = "".join(chr(code) for first, last in TRIMMED_RANGES for code in range(first, last + 1))
"""The characters of `TRIMMED_RANGES`."""

_COUNTRY_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY BZ CA CC CD CF CG CH CI CK CL
CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU
GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC
MD ME MF MG MH MK ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM PN PR PS PT
PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA
UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRY_CODES = frozenset(_COUNTRY_CODES.split())
"""The 249 codes of ISO 3166-1 alpha-2, as of ISO/TC 46 N1127 (2024-02-29), as in `iso3166.tab` of the time zone database."""


def normalise_text(text: str) -> str:
    """Return an identifier or a name in normal form: trimmed, NFC. The normal form of a normal form is itself."""
    if text.isascii() and text.isprintable():
        return text.strip(" ")
    return normalize("NFC", text.strip(TRIMMED_CHARACTERS))


def normalise_country(code: str) -> str:
    """Return a country in normal form: trimmed, NFC, the letters A to Z in upper case. Whether it is one, `COUNTRY_CODES` says."""
    code = normalise_text(code)
    return code.upper() if code.isascii() else code  # upper case would turn ß into SS, which is a country
