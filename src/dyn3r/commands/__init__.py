"""The commands of `dyn3r`, one a file: parse, call, report. No algorithm lives here."""
