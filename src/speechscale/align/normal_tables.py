"""Tables of text normalization: abbreviations, symbols, units, currencies, initialisms.

Enters: nothing. Leaves: plain dicts, to read and to extend. The one decision worth knowing: a period decides. "Dr." is
a doctor and "No." before digits a number, "no" is not; only titles that nobody mistakes stand without their period.
"""

from __future__ import annotations


def _table(text: str) -> dict[str, str]:
    """Lines or commas of "written=spoken"."""
    return dict(entry.strip().split("=", 1) for entry in text.replace("\n", ",").split(",") if entry.strip())


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


ABBREVIATIONS = _table("""
    mr=mister, mrs=missus, ms=miz, messrs=messieurs, dr=doctor, drs=doctors, prof=professor, rev=reverend,
    hon=honorable, gen=general, col=colonel, capt=captain, cpt=captain, lt=lieutenant, sgt=sergeant, cpl=corporal,
    maj=major, cmdr=commander, adm=admiral, gov=governor, sen=senator, pres=president, supt=superintendent, jr=junior,
    sr=senior, esq=esquire, st=saint, mt=mount, ft=fort, ave=avenue, blvd=boulevard, rd=road, co=company,
    corp=corporation, inc=incorporated, ltd=limited, bros=brothers, vs=versus, etc=et cetera, cf=compare, ca=circa,
    approx=approximately, dept=department, est=established, vol=volume, vols=volumes, pp=pages, fig=figure,
    figs=figures, e.g=for example, i.e=that is, viz=namely, ibid=ibidem, jan=january, feb=february, mar=march,
    apr=april, jun=june, jul=july, aug=august, sep=september, sept=september, oct=october, nov=november, dec=december
""")
"""Spoken when written with their period ("Dr.")."""
WITHOUT_PERIOD = _set("mr mrs ms dr messrs vs")
"""Abbreviations that need no period. "Dr" and the like must begin with a capital."""
BEFORE_DIGITS = _table("no=number, nos=numbers, p=page, ch=chapter, sec=section, art=article, ed=edition, v=verse")
"""Spoken only when the next word begins with a digit."""
ONLY_CAPITALIZED = _set("st mt ft mar sen gen col rev co sr jan dec oct nov jun jul apr feb aug")
"""With a capital only: "mar." and "co." may end a sentence."""

SYMBOLS = {
    "en": {"=": "equals"}
    | _table("&=and, @=at, %=percent, +=plus, §=section, °=degrees, ×=times, ÷=divided by, ±=plus or minus")
    | _table("‰=per mille, ≈=about, ≤=at most, ≥=at least, ≠=is not, µ=micro, √=square root of"),
    "de": {"=": "gleich"} | _table("&=und, @=at, %=prozent, +=plus, §=paragraf, °=grad, ×=mal"),
    "es": {"=": "igual a"} | _table("&=y, @=arroba, %=por ciento, +=más, °=grados, ×=por"),
    "fr": {"=": "égale"} | _table("&=et, @=arobase, %=pour cent, +=plus, °=degrés, ×=fois"),
}
"""Symbols said in words, by language; all others are silent."""

CURRENCIES = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "", ""),
    "₹": ("rupee", "rupees", "paisa", "paise"),
    "¢": ("cent", "cents", "", ""),
}
"""Sign: one, many, hundredth part, hundredth parts."""
MAGNITUDES = _table("k=thousand, m=million, mm=million, mn=million, b=billion, bn=billion, t=trillion, tn=trillion")
"""Letters behind an amount of money."""
MAGNITUDE_WORDS = _set("hundred thousand million billion trillion")

_UNITS = """
    km kilometer|m meter|cm centimeter|mm millimeter|mi mile|ft foot feet|yd yard|in inch inches|kg kilogram|g gram
    mg milligram|lb pound|lbs pound|oz ounce|t ton|l liter|L liter|ml milliliter|mL milliliter|cl centiliter
    s second|sec second|secs second|ms millisecond|min minute|mins minute|h hour|hr hour|hrs hour|yr year|yrs year
    Hz hertz hertz|kHz kilohertz kilohertz|MHz megahertz megahertz|GHz gigahertz gigahertz|dB decibel
    kB kilobyte|KB kilobyte|MB megabyte|GB gigabyte|TB terabyte|W watt|kW kilowatt|MW megawatt|kWh kilowatt_hour
    V volt|mph mile_per_hour miles_per_hour|kph kilometer_per_hour kilometers_per_hour|hp horsepower horsepower
    km/h kilometer_per_hour kilometers_per_hour|m/s meter_per_second meters_per_second
    °C degree_celsius degrees_celsius|°F degree_fahrenheit degrees_fahrenheit|° degree
    m² square_meter|km² square_kilometer|m³ cubic_meter|x times times
"""


def _units() -> dict[str, tuple[str, str]]:
    units = {}
    for row in _UNITS.replace("\n", "|").split("|"):
        if row.strip():
            sign, one, *many = row.split()
            units[sign] = (one.replace("_", " "), (many[0] if many else one + "s").replace("_", " "))
    return units


UNITS = _units()
"""Unit behind a number: one, many."""
NOT_ALONE = _set("in s t l L h W V x m")
"""Units that are spoken only when they touch their number: "5m", while "5 m" may be anything."""

INITIALISMS = _set(
    "ABC AC AD AI AKA AM AOL API ASAP ATM BA BCE CEO CIA CIO COO CPU DA DIY DNA DOA ECG EEG EKG EPA ER EU FAA FAQ FBI "
    "FDA FIFO GI GOP GPA GPU HIV IBM ICU ID IMF IOU IP IPA IPO IQ IRA IRS MIA MIT NBA NCAA NGO NRA NSA OS PE QA RNA "
    "SUV UAE UAV UFO UI UK UN UPS URL USA USB USSR UV VIP"
)
"""Capitals with a vowel that are read letter by letter. Those without a vowel always are."""
CAPITAL_SOUNDS = _set("HMM SHH SHHH PSST PST BRR BRRR GRR GRRR ZZZ TSK PFFT MR MRS DR ST NTH")
"""Capitals without a vowel that are not read letter by letter."""

ROMAN_CUES = _set(
    "chapter part book volume vol act scene section article canto appendix table figure phase type class title psalm "
    "lesson war stage category unit division corps apollo gemini saturn superbowl bowl"
)
"""Words (with a capital) before a Roman numeral that is said as a plain number."""
REGNAL_NAMES = _set(
    "henry louis george edward charles james william richard elizabeth mary john paul pius leo gregory innocent "
    "clement urban alexander nicholas peter catherine napoleon frederick philip ferdinand francis wilhelm otto "
    "leopold albert victor emmanuel gustav gustavus christian ivan ptolemy ramses rameses amenhotep thutmose darius "
    "xerxes robert malcolm david boniface benedict julius sixtus adrian eugene celestine stephen alfonso pedro "
    "carlos juan haakon olaf harald baldwin joseph rudolf maximilian ludwig edmund constantine theodosius justinian "
    "basil umberto "
)
"""Names before a Roman numeral that is said as "the eighth"."""
