"""Schedules of jobs, as the inventory has them and as systemd keeps them."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from slipway.controller.jobs import normalized, unfit
from slipway.controller.schedule import BadSchedule, calendars

GOOD = {
    "daily": ["daily"],
    " Hourly ": ["hourly"],
    "* * * * *": ["*-*-* *:*:00"],
    "*/15 * * * *": ["*-*-* *:00,15,30,45:00"],
    "0 3 * * *": ["*-*-* 03:00:00"],
    "5-59/20 8-18 * * mon-fri": ["Mon,Tue,Wed,Thu,Fri *-*-* 08..18:05,25,45:00"],
    "30 2 1 jan,JUL *": ["*-01,07-01 02:30:00"],
    "0 3 * * 0,7": ["Sun *-*-* 03:00:00"],
    "0 0 29 2 *": ["*-02-29 00:00:00"],
    # Either day is enough, unless one of the fields begins with an asterisk.
    "0 3 13 * 5": ["*-*-13 03:00:00", "Fri *-*-* 03:00:00"],
    "0 3 */10 * 1": ["Mon *-*-01,11,21,31 03:00:00"],
    "0 3 1 * */2": ["Tue,Thu,Sat,Sun *-*-01 03:00:00"],
    # Of two days the one that comes.
    "0 3 31 2 1": ["Mon *-02-* 03:00:00"],
    "*-*-* 03:00": ["*-*-* 03:00"],
    "03:00": ["03:00"],
    "Mon..Fri 08:30": ["Mon..Fri 08:30"],
    "Mon *-*-1..7 04:00:00 Europe/Berlin": ["Mon *-*-1..7 04:00:00 Europe/Berlin"],
    "*-*~1 05:00": ["*-*~1 05:00"],
    "*:0/15": ["*:0/15"],
    "Sat,Sun": ["Sat,Sun"],
}

BAD = {
    "": "is empty",
    "sometimes": "is neither hourly, daily",
    "@daily": "@daily is a word of cron: write hourly, daily",
    "@reboot": "is a word of cron",
    "0 3 * *": "is neither hourly, daily",
    "0 0 3 * * *": "is neither hourly, daily",
    "60 * * * *": "the minute is '60'; it must be of numbers from 0 to 59",
    "-1 * * * *": "the minute is '-1'",
    "* 8-6 * * *": "the hour is '8-6'; a range must begin with its lesser number",
    "*/0 * * * *": "a step must be a number from 1",
    "5/15 * * * *": "a step needs a range: 5-59/15",
    "0 0 L * *": "the day of the month is 'L'",
    "0 0 * foo *": "the month is 'foo'",
    "0 0 * * 8": "the day of the week is '8'",
    "0 0 31 2,4 *": "no month of '2,4' has a day 31",
    "25:00": "the hour in '25:00' is 25",
    "*-13-01 00:00": "the month in",
    "*:0/0": "a step of 0",
    "*-*-9..3 00:00": "a range must begin with its lesser number",
    "03:00 mars": "'mars' in '03:00 mars' is not part of a calendar",
    "*-*-* 3": "'3' in",
}


@pytest.mark.parametrize(("schedule", "expected"), GOOD.items())
def test_a_schedule_becomes_calendars_of_systemd(schedule: str, expected: list[str]) -> None:
    assert calendars(schedule) == expected


@pytest.mark.parametrize("schedule", GOOD)
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed here")
def test_systemd_accepts_what_is_made_of_a_schedule(schedule: str) -> None:
    for calendar in calendars(schedule):
        done = subprocess.run(["systemd-analyze", "calendar", calendar], capture_output=True, text=True, check=False)
        assert done.returncode == 0 and "Next elapse: never" not in done.stdout, done.stderr


@pytest.mark.parametrize(("schedule", "message"), BAD.items())
def test_what_is_no_schedule_is_refused_with_the_reason(schedule: str, message: str) -> None:
    with pytest.raises(BadSchedule) as refused:
        calendars(schedule)
    assert message in str(refused.value)


def test_a_job_gets_what_it_has_by_default() -> None:
    job = {"schedule": "0 3  * * *", "command": " make clean\n"}
    assert unfit({"cleanup": job}) == ""
    assert normalized({"cleanup": job}) == {
        "cleanup": {
            "schedule": "0 3 * * *",
            "calendars": ["*-*-* 03:00:00"],
            "command": "make clean",
            "hosts": "first",
            "timeout": 3600,
        }
    }


def test_each_job_that_is_wrong_is_named_with_the_reason() -> None:
    jobs = {"one": {"schedule": "daily"}, "two": {"schedule": "daily", "command": "make"}, "three": "make"}
    assert unfit(jobs) == "one: command is missing; three: a job is a mapping with a schedule and a command"
