"""One module a page of the book: its table (a pure function of records), its pictures, its sentences."""
