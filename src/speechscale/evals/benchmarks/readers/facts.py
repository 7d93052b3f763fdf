"""What every benchmark says of itself: paper, version, licence, origin, chance, usual protocol, expected files.

Enters: nothing. Leaves: `FACTS` and `LAYOUTS` by task. The one decision worth knowing: a licence or an origin is
written down only as it was found, with "not stated" where it was not; nothing is downloaded by us.
"""

from __future__ import annotations

from speechscale.evals.benchmarks.raw import Facts

_ZEROSPEECH = "download the sLM21 data of the ZeroSpeech 2021 challenge (https://zerospeech.com, its tool: zrc)"
_CLOZE_TEXT = "ask for the StoryCloze table at https://cs.rochester.edu/nlp/rocstories (it is given out on request)"

_ALL = (
    Facts(
        task="swuggy",
        title="sWUGGY",
        version="ZeroSpeech 2021",
        paper="Nguyen et al. 2020, The Zero Resource Speech Benchmark 2021, arXiv 2011.11588",
        licence="AFL-3.0 by the card of coml/sWuggy on the Hub",
        origin=_ZEROSPEECH,
        protocol="twist",
        note="papers report all words, or those in the vocabulary of LibriSpeech alone (tag in_vocab)",
    ),
    Facts(
        task="sblimp",
        title="sBLIMP",
        version="ZeroSpeech 2021",
        paper="Nguyen et al. 2020, The Zero Resource Speech Benchmark 2021, arXiv 2011.11588",
        licence="not stated where we looked; its texts are from BLiMP, CC BY 4.0",
        origin=_ZEROSPEECH,
        protocol="cuervo",
        note="mean over items, over pairs and over the 12 phenomena are three different published numbers",
    ),
    Facts(
        task="sstorycloze",
        title="Spoken StoryCloze",
        version="SpokenStoryCloze 2023",
        paper="Hassid et al. 2023 (TWIST), arXiv 2305.13009",
        licence="MIT by its repository; the texts are StoryCloze, given out on request",
        origin="download sStoryCloze, linked from https://github.com/slp-rl/SpokenStoryCloze",
        protocol="twist",
    ),
    Facts(
        task="tstorycloze",
        title="Topic StoryCloze",
        version="SpokenStoryCloze 2023",
        paper="Hassid et al. 2023 (TWIST), arXiv 2305.13009",
        licence="MIT by its repository; the texts are StoryCloze, given out on request",
        origin="download tStoryCloze, linked from https://github.com/slp-rl/SpokenStoryCloze",
        protocol="twist",
    ),
    Facts(
        task="sstorycloze_ms",
        title="Spoken StoryCloze, several voices",
        version="slprl/multispeaker-storycloze",
        paper="Maimon et al. 2025 (SIMS), arXiv 2504.02398",
        licence="see its card",
        origin="download the folder sSC of the dataset slprl/multispeaker-storycloze from the Hugging Face Hub",
        protocol="sims",
    ),
    Facts(
        task="tstorycloze_ms",
        title="Topic StoryCloze, several voices",
        version="slprl/multispeaker-storycloze",
        paper="Maimon et al. 2025 (SIMS), arXiv 2504.02398",
        licence="see its card",
        origin="download the folder tSC of the dataset slprl/multispeaker-storycloze from the Hugging Face Hub",
        protocol="sims",
    ),
    Facts(
        task="cross_modal",
        title="Cross-modal StoryCloze",
        version="as made by its user",
        paper="Maimon et al. 2025 (SIMS), arXiv 2504.02398",
        licence="that of the stories and voices it was made from",
        origin="make it: cut joined stories at the ending, or speak a text table (task cloze)",
        protocol="sims-cross",
    ),
    Facts(
        task="slamkit_pairs",
        title="Numbered pairs (slamkit)",
        version="as made by its user",
        paper="Maimon et al. 2025 (Slam), arXiv 2502.15814",
        licence="that of the recordings",
        origin="it is a folder made for slamkit",
        protocol="slam",
    ),
    Facts(
        task="salmon",
        title="SALMon",
        version="2024",
        paper="Maimon, Roth and Adi 2024, arXiv 2409.07437",
        licence="CC BY-NC 4.0",
        origin="download salmon_benchmark.zip, linked from https://github.com/slp-rl/salmon, and unpack it",
        protocol="slam",
        note="alignment sets ask whether sound and words fit; units without prosody hardly carry either",
    ),
    Facts(
        task="blimp",
        title="BLiMP, text",
        version="github.com/alexwarstadt/blimp",
        paper="Warstadt et al. 2020, arXiv 1912.00582",
        licence="CC BY 4.0",
        origin="take data/*.jsonl of https://github.com/alexwarstadt/blimp",
        protocol="cuervo",
        note="the BLiMP paper compares sums: cuervo:normalization=sum",
    ),
    Facts(
        task="cloze",
        title="StoryCloze, text",
        version="as in the table",
        paper="Mostafazadeh et al. 2016, arXiv 1604.01696",
        licence="given out on request",
        origin=_CLOZE_TEXT,
        protocol="cuervo-cloze",
    ),
    Facts(
        task="swag",
        protocol="speechscale:aggregate=all",
        title="SWAG, text",
        version="regular",
        paper="Zellers et al. 2018, arXiv 1808.05326",
        licence="unknown by the card of allenai/swag",
        origin="take val.csv of SWAG (config regular of allenai/swag on the Hub)",
        note="three pairs per question; a question is solved where all of its three are right",
    ),
    Facts(
        task="hellaswag",
        protocol="speechscale:aggregate=all",
        title="HellaSwag, text",
        version="as in the file",
        paper="Zellers et al. 2019, arXiv 1905.07830",
        licence="see https://github.com/rowanz/hellaswag",
        origin="take data/hellaswag_val.jsonl of https://github.com/rowanz/hellaswag",
        note="three pairs per question; a question is solved where all of its three are right",
    ),
    Facts(
        task="pairs",
        title="Pairs",
        version="as in the file",
        paper="none, these are your own data",
        licence="that of the file",
        origin="it is your own list of pairs; recordings lie beside it or below audio_root",
    ),
    Facts(
        task="storyworld",
        title="Storyworld",
        version="1",
        paper="this package, docs/storyworld.md",
        licence="that of this package",
        origin="it is generated",
        note="a model trained on one world is asked about that world only if settings and seed are equal",
    ),
)
FACTS = {facts.task: facts for facts in _ALL}

LAYOUTS = {
    "swuggy": "lexical/dev/gold.csv (id, filename, voice, frequency, word, correct) and lexical/dev/*.wav",
    "sblimp": "syntactic/dev/gold.csv (id, filename, voice, type, subtype, transcription, correct) and its *.wav",
    "sstorycloze": "ID_correct.wav and ID_incorrect.wav, or numbers 0_*.wav right, 1_*.wav wrong, 2_*.wav right, ...",
    "tstorycloze": "as sstorycloze",
    "sstorycloze_ms": "sSC/VOICE/*.parquet or *.jsonl (id, correct_text, correct_audio, negative_text, "
    "negative_audio), or sSC/VOICE/ID_correct.wav and ID_negative.wav",
    "tstorycloze_ms": "as sstorycloze_ms, in tSC",
    "cross_modal": "ID_mutual, ID_correct, ID_incorrect, each as .wav and .txt; or in a folder per voice",
    "slamkit_pairs": "0_*.wav right, 1_*.wav wrong, 2_*.wav right, ...; or in folders",
    "salmon": "eight folders (bg_alignment, ...) of sample_<i>_<k>.wav",
    "blimp": "*.jsonl (sentence_good, sentence_bad, UID, pairID, linguistics_term), a folder, a file or a .zip of them",
    "cloze": "a .csv, .tsv or .jsonl (InputStoryid, InputSentence1..4, RandomFifthSentenceQuiz1/2, AnswerRightEnding)",
    "swag": "a .csv or .jsonl (sent1, sent2, ending0..3, label)",
    "hellaswag": "a .jsonl (ctx_a, ctx_b, endings, label)",
    "pairs": "a .jsonl, one pair per line, recordings beside it",
    "storyworld": "nothing is read; give any folder, such as .",
}
"""What is expected below the path, one line each."""
