"""A run's figures: collected (`build`), and shown as text (`table`) and as one self-contained page (`html`)."""
