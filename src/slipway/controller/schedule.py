"""When a job runs: a word, five fields of cron, or a calendar of systemd, as calendars of systemd."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Words that systemd knows as well.
WORDS = ("minutely", "hourly", "daily", "weekly", "monthly", "quarterly", "yearly")

WEEKDAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
LONGEST_MONTHS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)

# Of each field of cron: its name, the least and the greatest number, and the names of numbers.
FIELDS: tuple[tuple[str, int, int, dict[str, int]], ...] = (
    ("minute", 0, 59, {}),
    ("hour", 0, 23, {}),
    ("day of the month", 1, 31, {}),
    ("month", 1, 12, {name: number for number, name in enumerate(MONTHS, 1)}),
    ("day of the week", 0, 7, {name: number for number, name in enumerate(WEEKDAYS)}),
)

# Parts of a calendar of systemd. Each component is *, numbers, ranges and steps.
DAY = r"(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*"
DAYS = re.compile(rf"{DAY}(?:(?:\.\.|-|,){DAY})*,?", re.IGNORECASE)
PART = r"(?:\*|\d+(?:\.\.\d+)?)(?:/\d+)?"
COMPONENT = rf"{PART}(?:,{PART})*"
DATE = re.compile(rf"(?:(?P<year>{COMPONENT})-)?(?P<month>{COMPONENT})[-~](?P<day>{COMPONENT})")
TIME = re.compile(rf"(?P<hour>{COMPONENT}):(?P<minute>{COMPONENT})(?::(?P<second>{COMPONENT}))?")
ZONE = re.compile(r"UTC|[A-Z][A-Za-z]+(?:/[A-Za-z0-9_+-]+){1,2}")
RANGES = {"year": (1970, 2199), "month": (1, 12), "day": (1, 31), "hour": (0, 23), "minute": (0, 59), "second": (0, 59)}


class BadSchedule(ValueError):
    """A schedule that cannot be kept; the message says why."""


def calendars(schedule: str) -> list[str]:
    """Return the calendars of systemd, at each of which a job runs.

    Args:
        schedule: a word such as `daily`, a calendar of systemd, or five fields of cron.

    Raises:
        BadSchedule: when it is none of these, or a time that never comes.
    """
    words = schedule.split()
    if not words:
        raise BadSchedule("the schedule is empty")
    if len(words) == 1 and words[0].lower() in WORDS:
        return [words[0].lower()]
    if words[0].startswith("@"):
        raise BadSchedule(f"{words[0]} is a word of cron: write {', '.join(WORDS[1:5])}, or five fields")
    if len(words) == 5:
        return from_cron(words)
    if len(words) > 5 or (not re.search(r"[:-]|\.\.|,", schedule) and not DAYS.fullmatch(words[0])):
        raise BadSchedule(
            f"'{schedule}' is neither {', '.join(WORDS[1:5])}, five fields of cron, nor a calendar such as *-*-* 03:00"
        )
    return [checked(words)]


def from_cron(words: Sequence[str]) -> list[str]:
    """Return what five fields of cron mean. With a day of the month and one of the week, either is enough: two calendars.

    Raises:
        BadSchedule: when a field is wrong, or no month has such a day.
    """
    minutes, hours, days, months, weekdays = (numbers(word, *field) for word, field in zip(words, FIELDS, strict=True))
    weekdays = {day % 7 for day in weekdays}
    time = f"{shown(hours, 0, 23)}:{shown(minutes, 0, 59)}:00"
    month, date = shown(months, 1, 12), shown(days, 1, 31)
    week = (
        "" if len(weekdays) == 7 else ",".join(WEEKDAYS[day].capitalize() for day in sorted(weekdays, key=lambda day: day or 7))
    )
    dated, weekly = f"{week} *-{month}-{date} {time}".strip(), f"{week} *-{month}-* {time}"
    # As cron has it: a field that begins with * narrows the other one.
    either = bool(week) and date != "*" and not (words[2].startswith("*") or words[4].startswith("*"))
    if not any(LONGEST_MONTHS[each - 1] >= min(days) for each in months):
        if not either:
            raise BadSchedule(f"no month of '{words[3]}' has a day {min(days)}, so it would never run")
        return [weekly]
    return [f"*-{month}-{date} {time}", weekly] if either else [dated]


def numbers(word: str, field: str, least: int, most: int, names: dict[str, int]) -> set[int]:
    """Return the numbers that a field of cron stands for.

    Args:
        word: the field as it is written.
        field: its name.
        least: the least number that it may have.
        most: the greatest.
        names: names of numbers.

    Raises:
        BadSchedule: when it stands for none.
    """

    def number(text: str) -> int:
        value = names.get(text.lower(), int(text) if re.fullmatch(r"\d{1,2}", text) else -1)
        if not least <= value <= most:
            raise BadSchedule(f"the {field} is '{word}'; it must be of numbers from {least} to {most}, such as {example(least)}")
        return value

    found: set[int] = set()
    for part in word.split(","):
        span, slash, step = part.partition("/")
        if slash and not re.fullmatch(r"[1-9]\d?", step):
            raise BadSchedule(f"the {field} is '{word}'; a step must be a number from 1, as in */15")
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = least, most
        elif dash:
            begin, end = number(first), number(last)
        else:
            begin = end = number(first)
            if slash:
                raise BadSchedule(f"the {field} is '{word}'; a step needs a range: {begin}-{most}/{step}")
        if begin > end:
            raise BadSchedule(f"the {field} is '{word}'; a range must begin with its lesser number")
        found |= set(range(begin, end + 1, int(step or 1)))
    return found


def example(least: int) -> str:
    """Return a field of cron, for a message."""
    return f"{least}, {least + 1}-{least + 4}, or */2"


def shown(found: set[int], least: int, most: int) -> str:
    """Return numbers as systemd has them: `*` for all, and ranges of three or more."""
    if len(found) == most - least + 1:
        return "*"
    runs: list[list[int]] = []
    for number in sorted(found):
        if runs and runs[-1][-1] == number - 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    parts = [[f"{run[0]:02}..{run[-1]:02}"] if len(run) > 2 else [f"{number:02}" for number in run] for run in runs]
    return ",".join(part for group in parts for part in group)


def checked(words: Sequence[str]) -> str:
    """Return a calendar of systemd, if it is one: days of the week, a date, a time and a time zone, in this order.

    The host asks its own systemd as well.

    Raises:
        BadSchedule: when it is not.
    """
    rest = list(words)
    found: dict[str, str] = {}
    for pattern in (DAYS, DATE, TIME, ZONE):
        match = pattern.fullmatch(rest[0]) if rest else None
        if match:
            found.update({name: text for name, text in match.groupdict().items() if text})
            rest.pop(0)
    text = " ".join(words)
    if rest:
        raise BadSchedule(f"'{rest[0]}' in '{text}' is not part of a calendar such as Mon..Fri *-*-* 03:00")
    if all(ZONE.fullmatch(word) for word in words):
        raise BadSchedule(f"'{text}' names no time: write a calendar such as *-*-* 03:00")
    for name, component in found.items():
        least, most = RANGES[name]
        for number in map(int, re.findall(r"(?<![\d/])\d+", component)):
            if not least <= number <= most:
                raise BadSchedule(f"the {name} in '{text}' is {number}; it must be from {least} to {most}")
        for first, last in re.findall(r"(\d+)\.\.(\d+)", component):
            if int(first) > int(last):
                raise BadSchedule(f"the {name} in '{text}' is {first}..{last}; a range must begin with its lesser number")
        if re.search(r"/0+(?!\d)", component):
            raise BadSchedule(f"the {name} in '{text}' has a step of 0")
    return text
