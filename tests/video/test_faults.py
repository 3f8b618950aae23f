"""Runs that are killed, given damaged clips, or left without space: a few here, hundreds by `pytest -m faults`."""

import os

import pytest
from faults import damaged, full, killed, memory, signalled

pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills as POSIX does")


def assert_kills_leave_nothing_wrong(found):
    assert not found.wrong, found
    assert not found.others, found


def assert_damage_is_told(found):
    assert not (found.hangs or found.crashes or found.halves), found


def small_disks(count, folder):
    try:
        found = full(count, folder)
    except PermissionError as error:
        pytest.skip(f"needs a file system of its own: {error}")
    assert found.finished == count
    assert not found.wrong, found


def test_killed_at_a_few_random_moments(tmp_path):
    assert_kills_leave_nothing_wrong(killed(3, 0, tmp_path))


def test_told_to_end_at_a_few_random_moments(tmp_path):
    found = signalled(3, 0, tmp_path)
    assert not found.wrong, found


def test_a_few_damaged_clips(tmp_path):
    assert_damage_is_told(damaged(6, 1, tmp_path))


def test_a_few_disks_that_are_too_small(tmp_path):
    small_disks(3, tmp_path)


@pytest.mark.faults
def test_killed_at_random_moments(tmp_path):
    found = killed(200, 0, tmp_path)
    assert_kills_leave_nothing_wrong(found)
    assert {"some segments", "joining"} <= found.left.keys()


@pytest.mark.faults
def test_signals_at_random_moments(tmp_path):
    found = signalled(60, 0, tmp_path)
    assert not found.wrong, found


@pytest.mark.faults
def test_damaged_clips(tmp_path):
    assert_damage_is_told(damaged(500, 0, tmp_path))


@pytest.mark.faults
def test_disks_that_are_too_small(tmp_path):
    small_disks(20, tmp_path)


@pytest.mark.faults
def test_memory_stays_as_it_is(tmp_path):
    means, _ = memory(5, tmp_path)
    assert len(means) == 5
    assert max(means) / min(means) < 1.1
