"""Scores of every format give the same notes; rolls are in quarter notes."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import pretty_midi

from jtm.files import InputError, InputWarning
from jtm.music import notation
from jtm.music.midi import write
from jtm.music.score import Note, Score

ABC = "X:1\nT:Scale\nC:Somebody\nM:4/4\nL:1/4\nK:C\nC D E- E | G2 c2 |]\n"
SCALE = [60, 62, 64, 67, 72]
KERN = "**kern\t**kern\n*M4/4\t*M4/4\n4C\t4c\n4D\t2e\n2E\t.\n.\t4g\n==\t==\n*-\t*-\n"


class TestFiles(unittest.TestCase):
    def setUp(self):
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def write(self, name, text):
        (self.folder / name).write_text(text, encoding="utf-8")
        return self.folder / name

    def test_abc_ties_and_title(self):
        ((title, notes),) = notation.read(self.write("a.abc", ABC))
        self.assertEqual(title, "Somebody: Scale")
        self.assertEqual(notes["pitch"].tolist(), SCALE)
        self.assertEqual(notes["beat"].tolist(), [0, 1, 2, 4, 6])
        self.assertEqual(notes["beats"].tolist(), [1, 1, 2, 2, 2])

    def test_abc_with_two_pieces(self):
        second = ABC.replace("X:1", "X:2").replace("Scale", "Other")
        pieces = notation.read(self.write("a.abc", ABC + "\n" + second))
        self.assertEqual([t for t, _ in pieces], ["Somebody: Scale", "Somebody: Other"])

    def test_abc_tunes_with_equal_or_no_numbers_are_all_read(self):
        tune = "X:{}\nT:{}\nM:4/4\nL:1/4\nK:C\n{}2 |]\n\n"
        rows = (1, "First", "C"), (1, "Second", "D"), ("", "Third", "E")
        book = "".join(tune.format(*row) for row in rows)
        pieces = notation.read(self.write("a.abc", book))
        self.assertEqual([title for title, _ in pieces], ["First", "Second", "Third"])
        self.assertEqual([n["pitch"].tolist() for _, n in pieces], [[60], [62], [64]])

    def test_abc_tune_that_cannot_be_read_is_counted_and_the_others_are_read(self):
        broken = ABC.replace("L:1/4", "L:1/q").replace("Scale", "Broken")
        empty = ABC.partition("C D")[0]
        path = self.write("a.abc", "\n".join((ABC, broken, empty, ABC)))
        with self.assertWarns(InputWarning) as caught:
            pieces = notation.read(path)
        self.assertEqual([title for title, _ in pieces], ["Somebody: Scale"] * 2)
        message = str(caught.warning)
        self.assertRegex(message, r"a\.abc: 2 of 4 tunes cannot be read \(.*: .*'q'")
        self.assertNotIn("\n", message)
        with self.assertRaisesRegex(InputError, r"a\.abc: not a readable .*'q'"):
            notation.read(self.write("a.abc", broken + "\n" + empty))

    def test_abc_text_between_tunes_is_not_music(self):
        text = "Free text: a dance, BAGGED in CADGE.\n"
        book = f"{text}\n{ABC}\n{text}{text}\t\n{ABC} \n{text}"
        pieces = notation.read(self.write("a.abc", book))
        self.assertEqual([n["pitch"].tolist() for _, n in pieces], [SCALE, SCALE])

    def test_abc_unit_note_length_defaults_to_that_of_the_meter(self):
        for fields, unit in (
            ("", 0.5),
            ("M:none\n", 0.5),
            ("M:C|\n", 0.5),
            ("M:6/8\n", 0.5),
            ("M:2/4\n", 0.25),
            ("M:2/4\nL:1/2\n", 2),
        ):
            # The second tune does not inherit from the first.
            book = f"{ABC}\nX:2\nT:T\n{fields}K:C\nC D\n"
            _, (_, notes) = notation.read(self.write("a.abc", book))
            self.assertEqual(notes["beats"].tolist(), [unit, unit], fields)

    def test_abc_file_header_applies_to_tunes_without_their_own_fields(self):
        header = "%abc-2.1\nM:2/4\nC:Somebody\n\n"
        tunes = "X:1\nT:A\nK:C\nC\n", "X:2\nT:B\nC:Other\nM:4/4\nK:C\nC\n"
        path = self.write("a.abc", header + "\n".join((*tunes, tunes[0])))
        pieces = notation.read(path)
        titles = ["Somebody: A", "Other: B", "Somebody: A"]
        self.assertEqual([title for title, _ in pieces], titles)
        self.assertEqual([n["beats"].item() for _, n in pieces], [0.25, 0.5, 0.25])

    def test_abc_voices_are_simultaneous_however_they_are_written(self):
        upper, lower = ("F G A B |", "d c B A |"), ("D4 |", "A,4 |")
        defined = "V:{0}\nV:{1} clef=bass\nK:D\n"  # in the header, whose K: is last
        turns = [(v, s[bar]) for bar in (0, 1) for v, s in enumerate((upper, lower))]
        whole = [(0, " ".join(upper)), (1, " ".join(lower))]
        expected = [66, 62, 67, 69, 71, 74, 57, 73, 71, 69]
        for header in (defined, "K:D\n"):
            for order in (whole, turns):
                for form in ("V:{}\n{}\n", "[V:{}] {}\n"):
                    for names in (("1", "2"), ("S", "B")):
                        text = "X:1\nT:T\nM:4/4\nL:1/4\n" + header.format(*names)
                        text += "".join(form.format(names[v], bar) for v, bar in order)
                        with self.subTest(text):
                            path = self.write("a.abc", text)
                            ((_, notes),) = notation.read(path)
                            notes = np.sort(notes, order=("beat", "part"))
                            self.assertEqual(notes["pitch"].tolist(), expected)
                            beats = [0, 0, 1, 2, 3, 4, 4, 5, 6, 7]
                            self.assertEqual(notes["beat"].tolist(), beats)

    def test_abc_fields_within_a_line_apply_from_there_on(self):
        text = "X:1\nT:T\n% a\nM:4/4\nL:1/4\nK:C\nC F2 C | [K:D] [L:1/8] C2 F4 %[K:F]\n"
        text += "C2 |\n"
        ((_, notes),) = notation.read(self.write("a.abc", text))
        self.assertEqual(notes["pitch"].tolist(), [60, 65, 60, 61, 66, 61])
        self.assertEqual(notes["beats"].tolist(), [1, 2, 1, 1, 2, 1])

    def test_abc_rests_of_bars_take_time(self):
        for head, rest, beats in (
            ("M:4/4\nL:1/4", "Z", 4),
            ("M:C\nL:1/4", "Z2", 8),
            ("M:6/8\nL:1/4", "Z", 3),
            ("M:2/4", "Z3", 6),
        ):
            text = f'X:1\n{head}\nK:C\nc|"Z"{rest}|!X!d|\n'
            ((_, (first, last)),) = notation.read(self.write("a.abc", text))
            self.assertEqual(last["beat"] - first["beats"], beats, head)
        for head in ("M:4/4\nL:1/4", "L:1/4"):
            text = f'X:1\n{head}\nK:C\nV:1\nCDEF|GABc|\nV:2\nx4|"x"x2 !x!g2|\n'
            ((_, notes),) = notation.read(self.write("a.abc", text))
            self.assertEqual(notes["beat"][notes["pitch"] == 79].tolist(), [6], head)
        voices = "X:1\nM:3/4\nL:1/4\nK:C\nV:1\ncde|\nM:4/4\ncdef|\nV:2\nZ|g3|\n"
        ((_, notes),) = notation.read(self.write("a.abc", voices))
        self.assertEqual(notes["beat"][notes["pitch"] == 79].tolist(), [3])

    def test_abc_clefs_do_not_transpose(self):
        for key in ("C clef=bass", "C bass", "C clef=alto middle=c", "C"):
            text = f"X:1\nL:1/4\nK:{key}\nCDEF|\n"
            ((_, notes),) = notation.read(self.write("a.abc", text))
            self.assertEqual(notes["pitch"].tolist(), [60, 62, 64, 65], key)

    def test_abc_text_in_fields_and_strings_is_no_music(self):
        for text in (
            "C D E F |\nw: do [V:Fag] a b c\n",
            '"10\\%" C D E F |\n',
            "^C C D E F |\n",
        ):
            text = f"X:1\nT:T\nM:none\nL:1/4\nK:C\n{text}"
            ((_, notes),) = notation.read(self.write("a.abc", text))
            expected = [61, 61] if "^" in text else [60]
            self.assertEqual(notes["pitch"].tolist(), [*expected, 62, 64, 65])

    def test_abc_in_latin_1_with_a_byte_order_mark_or_carriage_returns(self):
        text = ABC.replace("Scale", "L\u00e4ndler")
        for encoding in ("latin-1", "utf-8-sig"):
            path = self.folder / "a.abc"
            path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
            ((title, notes),) = notation.read(path)
            self.assertEqual(title, "Somebody: L\u00e4ndler")
            self.assertEqual(notes["pitch"].tolist(), SCALE)

    def test_abc_fragment_without_a_number(self):
        path = self.write("a.abc", "L:1/4\nK:C\n\nC D E- E | G2 c2 |]\n")
        ((_, notes),) = notation.read(path)
        self.assertEqual(notes["pitch"].tolist(), SCALE)

    def test_kern_has_one_part_per_spine(self):
        ((_, notes),) = notation.read(self.write("a.krn", KERN))
        self.assertEqual(set(notes["part"]), {0, 1})
        low = notes[notes["part"] == 1]
        self.assertEqual(len(low) + np.count_nonzero(notes["part"] == 0), len(notes))
        self.assertEqual(sorted(notes["pitch"]), [48, 50, 52, 60, 64, 67])

    def test_kern_is_at_sounding_pitch_also_for_transposing_instruments(self):
        text = "**kern\n*Iclars\n*ITrd1c2\n4c\n4d\n*-\n"
        ((_, notes),) = notation.read(self.write("a.krn", text))
        self.assertEqual(notes["pitch"].tolist(), [60, 62])

    def test_repeats_are_read_once(self):
        repeated = ABC.replace("C D", "|: C D").replace("|]", ":|")
        ((_, notes),) = notation.read(self.write("a.abc", repeated))
        self.assertEqual(notes["pitch"].tolist(), SCALE)

    def test_midi_and_musicxml_give_the_same_notes(self):
        from music21 import converter

        played = Score(tuple(Note(k / 2, k / 2 + 0.5, 1, 60 + k) for k in range(4)))
        write(self.folder / "a.mid", played)
        ((_, first),) = notation.read(self.folder / "a.mid")
        converter.parse(self.folder / "a.mid").write("musicxml", self.folder / "a.xml")
        ((_, second),) = notation.read(self.folder / "a.xml")
        for notes in (first, second):
            self.assertEqual(notes["pitch"].tolist(), [60, 61, 62, 63])
            self.assertEqual(notes["beat"].tolist(), [0, 1, 2, 3])  # 120 a minute

    def test_transposing_instruments_are_read_at_sounding_pitch(self):
        def measure(number, transpose):
            note = "<note><pitch><step>D</step><octave>5</octave></pitch>"
            return (
                f"<measure number='{number}'><attributes><divisions>1</divisions>"
                f"{transpose}</attributes>{note}<duration>4</duration></note></measure>"
            )

        def transpose(diatonic, chromatic):
            return (
                f"<transpose><diatonic>{diatonic}</diatonic>"
                f"<chromatic>{chromatic}</chromatic></transpose>"
            )

        # Clarinet in B flat, then in A, then a flute; a part without transposition.
        changes = transpose(-1, -2), "", transpose(-2, -3), transpose(0, 0)
        parts = [measure(*each) for each in enumerate(changes)], [measure(0, "")]
        names = "".join(
            f"<score-part id='P{k}'><part-name>Clarinet</part-name></score-part>"
            for k in range(2)
        )
        body = "".join(
            f"<part id='P{k}'>{''.join(part)}</part>" for k, part in enumerate(parts)
        )
        text = f"<part-list>{names}</part-list>{body}"
        text = f"<score-partwise version='3.1'>{text}</score-partwise>"
        ((_, notes),) = notation.read(self.write("a.musicxml", text))
        found = notes[["beat", "pitch", "part"]].tolist()
        self.assertEqual(
            found, [(0, 72, 0), (0, 74, 1), (4, 72, 0), (8, 71, 0), (12, 74, 0)]
        )

    def test_midi_file_with_an_endless_rest_is_refused(self):
        file = pretty_midi.PrettyMIDI(resolution=24)
        file.instruments.append(pretty_midi.Instrument(0))
        file.instruments[0].notes.append(pretty_midi.Note(90, 60, 9e4, 9e4 + 1))
        file.write(str(self.folder / "a.mid"))
        with self.assertRaisesRegex(InputError, "a.mid: .*180002 beats long"):
            notation.read(self.folder / "a.mid")

    def test_invalid_scores_are_refused_in_one_line(self):
        for name, text in (("a.xml", "<score"), ("b.mid", "MThd"), ("c.krn", "")):
            with self.assertRaisesRegex(InputError, name) as caught:
                notation.read(self.write(name, text))
            self.assertNotIn("\n", str(caught.exception))


class TestRolls(unittest.TestCase):
    NOTES = np.array([(0, 2, 60, 0), (1, 1, 64, 0), (3, 1, 21, 0)], notation.NOTE)

    def test_roll_of_a_passage(self):
        roll, length = notation.roll(self.NOTES, 1.0, 3.0)
        self.assertEqual(length, 2 * notation.CELLS)
        self.assertEqual(roll.shape, (2, 88, notation.WIDTH))
        active = np.flatnonzero(roll[0, 60 - 21])
        self.assertEqual(active.tolist(), list(range(notation.CELLS)))
        self.assertEqual(roll[1, 60 - 21].sum(), 0)  # its onset is before the passage
        self.assertEqual(np.flatnonzero(roll[1, 64 - 21]).tolist(), [0])
        self.assertEqual(roll[:, 0].sum(), 0)  # its onset is at the end of the passage

    def test_partly_covered_cell_has_a_fraction(self):
        roll, _ = notation.roll(self.NOTES, 0.0, 1 + 1 / (2 * notation.CELLS))
        self.assertAlmostEqual(roll[0, 64 - 21].sum(), 0.5, places=5)

    def test_roll_is_relative_to_its_passage(self):
        """A shifted passage has the same roll; long ones are cropped to the middle."""
        roll, _ = notation.roll(self.NOTES, 0.0, 4.0)
        later = self.NOTES.copy()
        later["beat"] += 100
        moved, _ = notation.roll(later, 100.0, 104.0)
        np.testing.assert_allclose(moved, roll, atol=1e-4)
        surplus, length = notation.roll(self.NOTES, -4.0, 8.0)
        np.testing.assert_allclose(surplus, notation.roll(self.NOTES, -2.0, 6.0)[0])
        self.assertEqual(length, notation.WIDTH)
        silent, length = notation.roll(self.NOTES[:0], 0.0, 0.1)
        self.assertEqual((silent.sum(), length), (0, 1))


if __name__ == "__main__":
    unittest.main()
