"""The rows of the Atlas sample, from Python's own seeded generator: the same seed and scale, the same rows.

Times are fixed (2021 to 2023). A party looks alike in all its rows but for the odd spelling; a kind's or an office's
name is corrected in later rows only, which is what comes of writing it into each.
"""

# ruff: noqa: RUF001 - letters of many scripts are the point of this data

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

Row = tuple[object, ...]

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "Dossier": (
        *("DossierId", "DossierRef", "Heading", "Phase", "KindCode", "KindName", "OfficeCode", "OfficeName"),
        *("OfficeLand", "ReceivedBy", "Priority", "IsLocked", "ClaimCents", "OpenedAt", "ClosedAt", "ModifiedOn"),
    ),
    "Participant": (
        *("ParticipantId", "DossierId", "PersonNo", "PersonName", "PersonMail", "PersonLand", "IsCompany"),
        *("RoleCode", "RoleSide", "ClaimCents", "RegisteredOn", "AdmittedAt", "Remark"),
    ),
    "Booking": ("BookingId", "DossierId", "BookingDay", "CentsIn", "CentsOut", "IsFinal", "Purpose"),
}

PHASES = ("offen", "prüfung", "ruht", "erledigt")
CLOSED = "erledigt"
KINDS = (
    ("NL", "Nachlass"),
    ("IN", "Insolvenz"),
    ("BT", "Betreuung"),
    ("ST", "Streitsache – 訴訟"),
    ("VW", "Verwaltung"),
)
OFFICES = (("B1", "Kanzlei am Münster", "DE"), ("Z2", "Zürich, Bahnhofstraße", "CH"), ("W3", "Wien – Дунай", "AT"))
ROLES = (
    ("gl", "claimant"),
    ("sch", "respondent"),
    ("bürge", "respondent"),
    ("verw", "officer"),
    ("rat", "adviser"),
)
_WAYS = ("Netz", "Telefon", "Post", None)
_HEADINGS = ("Erbe Ødegaard", "Claim “B”", "Σύμβαση", "Müller ./. Schmidt", "倉庫", "Hof & Gut 🌾")
_GIVEN = ("Jürgen", "Zoë", "Ελένη", "Юрій", "美咲", "Nguyễn", "نور")
_FAMILY = ("Weiß", "O'Brien", "Παππάς", "Шевченко", "Łukasik", "D’Angelo")
_FIRMS = ("Gebr. Groß OHG", "Crédit Léman SA", "ООО Ромашка", "Núñez & Co. 🌿")
_LANDS = ("DE", "at", "CH", "pl", "")
_PURPOSES = ("Rate 1/12", 'Gebühr "A"; §4', "Zeile eins\nZeile zwei", None, None)
_FIRST = 1_609_459_200  # 2021-01-01 00:00 UTC
_TWO_YEARS_S = 63_072_000
_DAY_S = 86_400


@dataclass(frozen=True)
class Sizes:
    """Row counts; `of_scale(1)` is 4k dossiers, 10k participants and 20k bookings."""

    dossiers: int
    persons: int
    participants: int
    bookings: int

    @classmethod
    def of_scale(cls, scale: float) -> Sizes:
        dossiers = max(10, round(4_000 * scale))
        return cls(dossiers=dossiers, persons=dossiers * 3 // 4, participants=dossiers * 5 // 2, bookings=dossiers * 5)


def make_rows(sizes: Sizes, seed: int) -> dict[str, list[Row]]:
    """The rows of every table, in the order of COLUMNS."""
    chance = random.Random(seed)
    dossiers = [make_dossier(chance, number) for number in range(1, sizes.dossiers + 1)]
    persons = [_make_person(chance, number) for number in range(1, sizes.persons + 1)]
    opened = [int(str(row[13])) for row in dossiers]
    return {
        "Dossier": dossiers,
        "Participant": [_participate(chance, number, opened, persons) for number in range(1, sizes.participants + 1)],
        "Booking": [_book(chance, number, opened) for number in range(1, sizes.bookings + 1)],
    }


def make_dossier(chance: random.Random, number: int) -> Row:
    """A dossier; one in forty has no kind, and the first hundred have a kind's name from before it was corrected."""
    opened = _FIRST + chance.randrange(_TWO_YEARS_S)
    closed = opened + chance.randrange(250 * _DAY_S)
    phase = chance.choice((*PHASES, *PHASES[:1]))
    kind, kind_name = chance.choice(KINDS) if chance.randrange(40) else (None, None)
    office, office_name, land = chance.choice(OFFICES)
    return (
        number,
        f"AT-{number:06}",
        f"{chance.choice(_HEADINGS)} {number}{' ' if number % 19 == 0 else ''}",
        phase,
        kind,
        f"{kind_name} (alt)" if kind and number <= 100 else kind_name,
        office,
        office_name,
        land,
        chance.choice(_WAYS),
        chance.randrange(6),
        int(chance.random() < 0.1),
        chance.choice((0, chance.randrange(1, 10**8), chance.randrange(1, 10**6))),
        opened,
        closed if phase == CLOSED else 0,
        iso(closed),
    )


def _make_person(chance: random.Random, number: int) -> Sequence[object]:
    """(number, name, mail, land, company)."""
    is_company = chance.random() < 0.3
    name = chance.choice(_FIRMS) if is_company else f"{chance.choice(_GIVEN)} {chance.choice(_FAMILY)}"
    mail = f"Person{number}@Atlas.Example" if chance.random() < 0.8 else chance.choice(("", None))
    return (number, f"{name} {number}" if is_company else name, mail, chance.choice(_LANDS), int(is_company))


def _participate(chance: random.Random, number: int, opened: Sequence[int], persons: Sequence[Sequence[object]]) -> Row:
    dossier = chance.randrange(len(opened))
    person, name, mail, land, company = persons[int(len(persons) * chance.random() ** 1.5)]
    registered = opened[dossier] + chance.randrange(60 * _DAY_S)
    return (
        number,
        dossier + 1,
        person,
        f" {name}" if number % 29 == 0 else name,
        mail,
        land,
        company,
        *chance.choice(ROLES),
        chance.choice((None, chance.randrange(1, 10**7))),
        iso(registered),
        registered + chance.randrange(90 * _DAY_S) if chance.random() < 0.6 else None,
        chance.choice(_PURPOSES),
    )


def _book(chance: random.Random, number: int, opened: Sequence[int]) -> Row:
    dossier = int(len(opened) * chance.random() ** 1.5)
    day = datetime.fromtimestamp(opened[dossier] + chance.randrange(250 * _DAY_S), UTC).date()
    cents = chance.randrange(10**7)
    paid_in, paid_out = (cents, 0) if chance.random() < 0.6 else (0, cents)
    is_final, purpose = int(chance.random() < 0.9), chance.choice(_PURPOSES)
    return (number, dossier + 1, day.isoformat(), paid_in, paid_out, is_final, purpose)


def iso(seconds: int) -> str:
    """Unix seconds as the program writes a moment: 2021-05-01T12:00:00Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
