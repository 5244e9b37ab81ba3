"""The meaning of a column by its name, in the languages of banks' exports and of public credit data."""

import re
import unicodedata
from collections.abc import Iterable, Mapping

PROTECTED = re.compile(
    r"(^|_)(sex|gender|geschlecht|age|alter|edad|birth\w*|dob|race|ethnic\w*|religion|nationality|marital\w*|marriage|civil_status|"
    r"estado_civil"
    r"|disab\w*|pregnan\w*|dependants?|dependents?|foreign_worker|personal_status\w*)(_|$)"
)
"""Names of protected attributes."""
LEAKS = re.compile(
    r"(^|_)(default\w*|outcome|recover\w*|charged?_?off\w*|collection\w*|written_off|paid_back|settled|last_payment\w*|"
    r"total_pymnt\w*)(_|$)"
)
"""Names of what is known only when a loan has ended."""
IDENTIFIERS = re.compile(r"(^|_)(id|uuid|guid|key|no|nr|number|num|ref|reference|iban|bic|email|phone|telefon|name|address)$")
"""Names of identifiers and of what names a person."""
TARGETS = re.compile(
    r"^(y|target\w*|label\w*|class|bad\w*|good_bad|is_bad|default\w*|is_default|seriousdlqin2yrs|riskperformance|risk_performance|"
    r"loan_status|"
    r"bad_flag|kredit|credit_risk|creditability|\w*default\w*|\w*_bad\w*|impago|mora|repaid|is_repaid|(fully_)?paid(_back|_off)?|"
    r"status|outcome|ausfall)$"
)
"""Names of a loan's outcome."""
FRAUDS = re.compile(r"^(is_?fraud|fraud\w*|class|label\w*|target|tx_fraud|is_fraudulent|betrug)$")
ACCEPTED = re.compile(r"^(accepted|is_accepted|applied|take_?up|response|converted|y|subscribed|deposit)$")

_TRANSACTIONS = {
    "debit": r"debit(_amount)?|soll|ausgang|abgang|belastung|lastschrift|withdrawals?(_amt)?|paid_out|money_out|ausgaben?|debet|cargo|uit|"
    r"debito|amount_out|sortie|addebiti|dare|uitgaven|payments|out|ut|spent|debits?",
    "credit": r"credit(_amount)?|haben|eingang|gutschrift|deposits?(_amt)?|paid_in|money_in|einnahmen?|kredit|abono|in|credito|"
    r"amount_in|entree|accrediti|avere|inkomsten|receipts|inn|received|credits?",
    "transaction_id": r"(transaction|trans|tx|txn|payment|booking|buchungs?|umsatz)_?(id|no|nr|num|number|ref|reference|key)|id|trans|"
    r"fitid|reference|referenz|unique_id|id_transaction|cislo_transakce|id_pohybu",
    "customer_id": r"(customer|client|cust|user|member|kunden?|cliente|person|holder|card_?holder)_?(id|no|nr|nummer|number|key)?|"
    r"cc_num|kundennr|klient|id_client|id_cliente",
    "account_id": r"(account|acct|konto|cuenta|compte|card)_?(id|no|nr|nummer|number|key|name)?|iban(_auftragskonto)?|auftragskonto|"
    r"kontonummer|"
    r"own_iban|rekening\w*|cislo_uctu|card_num(ber)?",
    "occurred_at": r"(transaction|trans|tx|txn|posting|posted|booking|payment|purchase|completed)?_?(date|time|datetime|"
    r"timestamp|at|ts)|"
    r"(date_)?time(stamp)?|datum|zeit(punkt)?|buchungstag|buchungsdatum|buchung|fecha(_de)?(_operacion)?|data(_contabile)?|dato|occurred_at|"
    r"booked_at|date_operation|date_de_comptabilisation|date_posted|boekdatum|bogforingsdato|data_operacji|"
    r"trans_date_trans_time|tx_datetime|datum_provedeni|date_of_\w+|when|day",
    "value_date": r"started_(date|time|at)|value_date|valuta|valutadatum|wertstellung|date_valeur|data_valuta|fecha_valor|rentedatum",
    "amount": r"(transaction|trans|tx|txn|payment|purchase|signed)?_?(amount|amt|betrag|sum|value)(_\w{3})?|umsatz|importe|montant|"
    r"bedrag(_\w{3})?|castka|objem|"
    r"belop|belob|kwota|importo|summe|amount_\w{3}|betrag_\w{3}|amount_in_\w+|valor|net(_amount)?|netto",
    "direction": r"(transaction_?|trans_?|tx_?|entry_?)?(type|direction|side|sign)|dc|d_c|cr_?dr|dr_?cr|debit_credit|credit_debit\w*|"
    r"soll_haben(_kennzeichen)?|s_h|c_d|sens|indicator|kennzeichen|typ|af_bij|drcr|cdtdbtind|debet_credit|money_flow",
    "balance_amount": r"(running_?|account_?|closing_?)?(balance|saldo|solde)(_after)?(_\w{3})?|kontostand|balance_amount|"
    r"new_balance|zustatek|saldo_(na|nach)_\w+|saldo_disponible",
    "category": r"(merchant_)?(category|kategorie|mcc|categoria|categorie)(_code|_name)?|purpose_code|k_symbol|verwendung|budget",
    "merchant": r"merchant(_name|_id|_no)?|payee|counterparty(_name)?|empfanger|auftraggeber_empfanger|beguenstigter\w*|"
    r"begunstigter\w*|name_zahlungsbeteiligter|"
    r"partner(name)?|beneficiary|terminal_id|shop|store|provider|comercio|vendor|name_description|gegenpartei|zahlungsempfanger\w*|"
    r"naam_omschrijving|auftraggeber\w*|empfaenger|zahlungsempfaenger",
    "description": r"(transaction_)?(description|details|narrative|memo|text|notes?|reference|purpose|particulars)|verwendungszweck|"
    r"buchungstext|libelle|concepto|descripcion|causale|descrizione|omschrijving|mededelingen|name|tekst|tytul|subject|remittance\w*|"
    r"payment_reference",
    "country": r"(merchant_)?(country|land|pais|pays)(_code)?|laenderkennzeichen",
    "currency": r"currency(_code)?|wahrung|waehrung|devise|divisa|moneda|mena|muntsoort|valuta(_code)?|waluta|mutationwaehrung|ccy",
    "is_fraud": FRAUDS.pattern.strip("^$"),
}
_LOANS = {
    "loan_id": r"(loan|credit|application|app|contract|kredit|agreement|case)_?(id|no|nr|nummer|number|key)|id|sk_id_curr|unnamed_0|"
    r"column_1|expediente|id_\w+",
    "customer_id": r"(customer|client|cust|borrower|member|user|kunden?|person|applicant)_?(id|no|nr|nummer|number|key)|id_client|"
    r"id_cliente",
    "applied_at": r"(applied|application|app|issue|issued|issue_d|start|origination|orig|loan|granted|approval|opened|open)_?(at|"
    r"date|d|time|day|dt)|date|"
    r"datum|fecha|antragsdatum|dataappr\w*|month|fecha_\w+",
    "loan_amount": r"(loan_?|credit_?|kredit_?|limit_?|granted_?|approved_?|requested_?|funded_?)(amount|amnt|amt|hohe|bal|betrag|"
    r"sum|limit|amount_requested)|loan|"
    r"amount|credit_limit|limit_bal|kreditbetrag|kredithohe|hoehe|amt_credit|importe|principal|loanamount|monto|disbursed_amount|"
    r"amountrequested|"
    r"credit|loan_amnt|betrag",
    "term_months": r"(loan_?|credit_?)?(term|duration|tenor|maturity|laufzeit|laufkont_?dauer|plazo)(_in)?(_?months?|_monate|"
    r"_meses)?|months|laufzeit|plazo|"
    r"duration_in_month|loan_term",
    "annual_rate_pct": r"(annual_?|interest_?|nominal_?|int_?|loan_?)+(rate|percent)(_pct|_pa)?|apr|int_rate|zinssatz|zins|tasa|"
    r"rate_pct|interest|rate",
    "instalment_amount": r"(monthly_?)?(instal+ment|payment|rate|annuity|emi)(_amount)?|monatsrate|cuota|amt_annuity",
    "outcome_known_at": r"(outcome|default|status|closed|closing|end|maturity)_?(known)?_?(at|date|on|dt)|fecha_mora",
    "is_default": TARGETS.pattern.strip("^$"),
}
_CUSTOMERS = {
    "customer_id": r"(customer|client|cust|user|member|kunden?|person)_?(id|no|nr|nummer|number|key)|id|id_client|id_cliente",
    "birth_year": r"birth_?year|year_of_birth|yob|geburtsjahr",
    "gender": r"gender|sex|geschlecht|sexo",
    "country": r"country(_code|_of_residence)?|land|pais|residence",
    "joined_at": r"(joined|since|signup|sign_up|registered|created|start|member_since|customer_since|kunde_seit)_?(at|date|on)?",
    "income_amount": r"(monthly_?|net_?|declared_?)*(income|salary|einkommen|gehalt|ingresos)(_amount)?",
}
_ACCOUNTS = {
    "account_id": r"(account|acct|konto|cuenta)_?(id|no|nr|nummer|number|key)|iban|id",
    "customer_id": _CUSTOMERS["customer_id"].removesuffix("|id|id_client|id_cliente") + "|owner(_id)?",
    "opened_at": r"(opened|opening|open|created|start|date)_?(at|date|on)?|eroffnet|date",
    "overdraft_limit_amount": r"(overdraft|credit)_?(limit)?(_amount)?|dispo",
}
_OFFERS = {
    "offer_id": r"offer_?(id|no|nr|number|key)|id",
    "customer_id": _CUSTOMERS["customer_id"].removesuffix("|id|id_client|id_cliente"),
    "offered_at": r"(offered|offer|sent|mailed|date)_?(at|date|on)?",
    "loan_amount": _LOANS["loan_amount"],
    "term_months": _LOANS["term_months"],
    "annual_rate_pct": _LOANS["annual_rate_pct"] + "|offer_rate",
    "is_rate_random": r"is_rate_random|random\w*|randomi[sz]ed",
    "is_accepted": ACCEPTED.pattern.strip("^$"),
}
ROLES: Mapping[str, Mapping[str, re.Pattern[str]]] = {
    table: {role: re.compile(rf"(?:{pattern})") for role, pattern in roles.items()}
    for table, roles in {
        "transactions": _TRANSACTIONS, "loans": _LOANS, "customers": _CUSTOMERS, "accounts": _ACCOUNTS, "offers": _OFFERS,
    }.items()
}  # fmt: skip
"""Table -> role of a column -> names of it, folded. The roles debit, credit, value_date, description and currency are no columns of the
ledger."""

_DEBIT = """
d debit dr dbit s soll out outgoing withdrawal expense af vydaj cargo - debet charge purchase payment uit db
sortie
"""
_DEBIT_WORDS = frozenset(_DEBIT.split())
_CREDIT = """
c credit cr crdt h haben in incoming deposit income bij prijem abono + kredit refund topup eingang entree
"""
_CREDIT_WORDS = frozenset(_CREDIT.split())


_IN_CURRENCY = re.compile(r"_in_[a-z]{3}$")


def fold(name: str) -> str:
    """Return a column's name in small ASCII letters, its words joined by underscores: ``Betrag (EUR)`` is ``betrag_eur``."""
    plain = unicodedata.normalize("NFKD", name.replace("ß", "ss")).encode("ascii", "ignore").decode()
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", plain)
    return re.sub(r"[^a-z0-9]+", "_", apart.lower()).strip("_")


def find_role(table: str, name: str) -> list[str]:
    """Return the roles in a table that a name stands for, the likeliest first."""
    plain = fold(re.sub(r"\(.*?\)|\[.*?\]", "", name))  # Betrag (in EUR), Date [UTC]
    spellings = {fold(name), fold(name).replace("_", ""), fold(name.lower()), plain, _IN_CURRENCY.sub("", plain)}
    return [role for role, pattern in ROLES[table].items() if any(pattern.fullmatch(spelling) for spelling in spellings)]


def read_directions(words: Iterable[str]) -> dict[str, str] | None:
    """Return the words of a direction -> debit or credit; None where a word is neither, or there is none."""
    meanings = {}
    for word in words:
        parts = {word.lower(), *re.split("[^a-z]+", word.lower())}
        is_debit, is_credit = bool(parts & _DEBIT_WORDS), bool(parts & _CREDIT_WORDS)
        if is_debit == is_credit:
            return None
        meanings[word] = "debit" if is_debit else "credit"
    return meanings or None


def ledger_name(name: str, taken: set[str]) -> str:
    """Return a name that an extra column may have, and that is not taken."""
    own = fold(name)
    own = own if re.match("[a-z]", own) else f"column_{own}".rstrip("_")
    while own in taken:
        own += "_2"
    return own
