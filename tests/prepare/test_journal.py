from pathlib import Path

from gramgan_plugin.prepare.journal import Journal


class TestJournal:
    def test_feature_goes_on(self, tmp_path: Path) -> None:
        for number in range(3):
            journal = Journal(tmp_path)
            assert journal.records == [{"done": n, "name": "é\n"} for n in range(number)]
            journal.append({"done": number, "name": "é\n"})
            journal.close()
        assert journal.path.read_bytes().count(b"\n") == 3

    def test_feature_what_a_crash_left_is_overwritten(self, tmp_path: Path) -> None:
        journal = Journal(tmp_path)
        journal.append({"done": 1})
        journal.close()
        for torn in (b'{"done": 2', b'{"done": 2}', b"\0\0\0\0\n", b"7\n", b"\xff\n", b"[" * 100_000 + b"\n"):
            whole = journal.path.read_bytes()
            journal.path.write_bytes(whole + torn)
            again = Journal(tmp_path)
            assert again.records == [{"done": 1}]
            again.close()
            assert journal.path.read_bytes() == whole
