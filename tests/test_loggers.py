"""metrics.csv: what it holds after any order of rows, columns and interruptions, and how it is written."""

import csv

from diffusion.loggers import Csv


def rows(folder) -> dict[str, str]:
    with open(folder / "metrics.csv", newline="") as file:
        return {row["step"]: row["loss"] for row in csv.DictReader(file)}


def test_lines_of_another_count_of_steps_delete_none(tmp_path):
    first = Csv(tmp_path)
    for step in (2, 4, 6):
        first.log_metrics({"loss": step}, step)
        first.log_metrics({"of lightning": 1.0}, step - 1)  # which counts from 0
    goes_on = Csv(tmp_path)  # from step 4
    goes_on.log_metrics({"of lightning": 2.0}, 5)
    goes_on.log_metrics({"loss": 7.0}, 6)
    assert rows(tmp_path) == {"1": "", "2": "2.0", "3": "", "4": "4.0", "5": "", "6": "7.0"}


def test_rows_are_appended_and_a_last_row_may_still_grow(tmp_path):
    log = Csv(tmp_path)
    log.log_metrics({"loss": 1.0, "rate, of pictures": 3.0}, 1)
    file = (tmp_path / "metrics.csv").stat().st_ino
    for step in range(2, 5):
        log.log_metrics({"loss": float(step)}, step)
        log.log_metrics({"rate, of pictures": 0.1}, step)
    log.log_metrics({"loss": 9.0}, 4)
    assert (tmp_path / "metrics.csv").stat().st_ino == file
    assert (tmp_path / "metrics.csv").read_text() == (
        'step,loss,"rate, of pictures"\n1,1.0,3.0\n2,2.0,0.1\n3,3.0,0.1\n4,9.0,0.1\n')


def test_a_file_that_was_removed_meanwhile_is_written_anew(tmp_path):
    log = Csv(tmp_path)
    log.log_metrics({"loss": 1.0}, 1)
    (tmp_path / "metrics.csv").unlink()
    log.log_metrics({"loss": 2.0}, 2)
    assert rows(tmp_path) == {"1": "1.0", "2": "2.0"}


def test_a_last_row_that_a_kill_has_torn_is_left_out(tmp_path):
    log = Csv(tmp_path)
    for step in (1, 2, 3):
        log.log_metrics({"loss": step / 8}, step)
    whole = (tmp_path / "metrics.csv").read_bytes()
    (tmp_path / "metrics.csv").write_bytes(whole[:-2])
    Csv(tmp_path).log_metrics({"loss": 4.0}, 4)
    assert rows(tmp_path) == {"1": "0.125", "2": "0.25", "4": "4.0"}
