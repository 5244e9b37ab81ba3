"""The normal form of identifiers, names and countries, in which both halves store, compare and look them up.

An identifier or a name is trimmed and in Unicode's form NFC, so that a person is the same person however their identifier was typed.
Upper and lower case stay significant: `A1` and `a1` are two customers. A country is in upper case besides. Nothing else of the service or
the ledger changes an identifier.
"""

from unicodedata import normalize

TRIMMED_CHARACTERS = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000\u200b\u200c\u200d\u2060\ufeff"
)
"""Characters that are removed at both ends: Unicode's white space, and the characters without width that nobody sees."""

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
    return normalize("NFC", text.strip(TRIMMED_CHARACTERS))


def normalise_country(code: str) -> str:
    """Return a country in normal form: trimmed, NFC, the letters A to Z in upper case. Whether it is one, `COUNTRY_CODES` says."""
    code = normalise_text(code)
    return code.upper() if code.isascii() else code  # upper case would turn ß into SS, which is a country
