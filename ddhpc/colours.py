"""Colours that colour-blind readers tell apart."""

BLACK, ORANGE, SKY, GREEN, YELLOW, BLUE, VERMILLION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#F0E442",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
"""Okabe and Ito, Color Universal Design (2008), https://jfly.uni-koeln.de/color/."""
GREY, PALE = "#767676", "#E8E8E8"
