"""A run's figures: collected (`build`), shown as text (`table`) and as one self-contained page (`html`)."""
