"""Writes `predictions/`: tiny models with heads and tokenizers, and what the pipelines of transformers make of texts.

    python generate_predictions.py                      # all but the answers
    python generate_predictions.py question-answering   # the answers, with transformers 4

Pinned: Python 3.11, torch 2.15.0, transformers 5.23.0, tokenizers 0.23.3, sentence-transformers 6.2.0, on a CPU, one thread. The question
answering pipeline is that of transformers 4.57.6 with tokenizers 0.22.2: transformers 5 has none. README.md beside this file says what the
files hold.
"""

import json
import os
import shutil
import sys
import warnings
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import torch
import transformers

HERE = Path(__file__).resolve().parent / "predictions"
torch.set_num_threads(1)
transformers.logging.disable_progress_bar()
warnings.filterwarnings("ignore")

# Labels and answers must not hang on rounding: the two best scores differ by more than this.
LEAST_MARGIN = 1e-4

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "MISC"]

TEXTS = [
    "Ann Lee lives in Washington, not in New York.",
    "straße 7 in Köln: 中文 and 😀 emoji",
    "  two  spaces\tand\na line ",
    "unbelievable [SEP] washingtons [UNK] newyork",
    "a",
    "...",
    "The cat sat on the mat; the dog did not. " * 2,
]
PAIRS = [
    ("what is it", "a cat"),
    ("where does Ann live", "Ann Lee lives in Washington"),
    ("", "empty first"),
    ("the dog " * 20, "the second text, which is shorter"),
]
QUESTIONS = [
    ("where does Ann live?", "Ann Lee lives in Washington, not in New York. Bob was in Köln before 1999."),
    ("who sat?", "The cat sat on the mat; the dog did not. 中文 😀 stands here, and straße 7. " * 4),
    ("what?", "Washington WASHINGTON washington newyork unbelievable cats"),
]
MASKED = ["the [MASK] sat on the mat", "[MASK] york", "a [MASK] and a [MASK].", "Köln is [MASK], 😀!"]


def words():
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    whole = ["the", "cat", "dog", "sat", "on", "mat", "in", "new", "york", "wash", "ann", "lee", "un", "not", "and"]
    parts = ["##ing", "##ton", "##s", "##believ", "##able", "##york"]
    return special + letters + whole + parts + ["##" + letter for letter in letters if letter != "s"] + list(".,;:?!0123456789")


def bert_tokenizer(folder, **settings):
    (folder / "vocab.txt").write_text("".join(word + "\n" for word in words()))
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": True, **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return len(words())


def roberta_tokenizer(folder, **settings):
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(TEXTS[:2] + TEXTS[-1:], vocab_size=300, special_tokens=special, show_progress=False)
    trained.save_model(str(folder))
    settings = {"tokenizer_class": "RobertaTokenizer", **settings}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=1) + "\n")
    return trained.get_vocab_size()


def make(name, family, head, tokenizer=bert_tokenizer, seed=0, tokenizer_settings=None, **config):
    folder = HERE / name
    folder.mkdir(parents=True)
    vocab_size = tokenizer(folder, **(tokenizer_settings or {}))
    configuration = getattr(transformers, f"{family}Config")(
        vocab_size=vocab_size,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=50 if family == "Roberta" else 48,
        initializer_range=0.7,
        pad_token_id=1 if family == "Roberta" else 0,
        **config,
    )
    torch.manual_seed(seed)
    model = getattr(transformers, f"{family}For{head}")(configuration).eval()
    for parameter in model.parameters():
        # Biases that do something, which initialization leaves at 0.
        if parameter.ndim == 1 and parameter.abs().max() == 0:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def write(folder, expected):
    text = json.dumps(expected, ensure_ascii=False, indent=0, default=float)
    (folder / "expected.json").write_text(text + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name:30} {size // 1000:3} kB")


def plain(entity):
    return {key: round(float(value), 8) if key == "score" else value for key, value in entity.items()}


def token_classification():
    for name, family, tokenizer in [
        ("bert-token-classification", "Bert", bert_tokenizer),
        ("roberta-token-classification", "Roberta", roberta_tokenizer),
    ]:
        id2label = dict(enumerate(LABELS))
        folder = make(name, family, "TokenClassification", tokenizer, seed=3, id2label=id2label,
                      tokenizer_settings={"model_max_length": 48})
        pipeline = transformers.pipeline("token-classification", model=str(folder), tokenizer=str(folder))
        model = pipeline.model
        with torch.no_grad():
            # Every label somewhere: none is likelier than the others everywhere.
            logits = [model(**pipeline.tokenizer(text, return_tensors="pt", truncation=True)).logits[0] for text in TEXTS]
            model.classifier.bias -= torch.cat(logits).mean(0)
        model.save_pretrained(folder)
        expected, labels = [], set()
        for text in TEXTS:
            case = {"text": text}
            for strategy in ["none", "simple", "first", "average", "max"]:
                case[strategy] = [plain(entity) for entity in pipeline(text, aggregation_strategy=strategy)]
            labels |= {entity["entity"] for entity in case["none"]}
            expected.append(case)
        assert labels == set(LABELS) - {"O"}, labels
        write(folder, expected)


def sequence_classification():
    from sentence_transformers import CrossEncoder

    cases = [
        ("bert-single-label", dict(id2label={0: "bad", 1: "fair", 2: "good"})),
        ("bert-multi-label", dict(id2label={0: "red", 1: "round"}, problem_type="multi_label_classification")),
        ("bert-regression", dict(num_labels=1, problem_type="regression")),
        ("bert-cross-encoder", dict(num_labels=1)),
        ("bert-cross-encoder-identity",
         dict(num_labels=1, sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"})),
    ]
    for name, config in cases:
        folder = make(name, "Bert", "SequenceClassification", seed=5, tokenizer_settings={"model_max_length": 48}, **config)
        pipeline = transformers.pipeline("text-classification", model=str(folder), tokenizer=str(folder), top_k=None,
                                         truncation=True)
        expected = {
            "texts": [{"text": text, "labels": pipeline([text])[0]} for text in TEXTS],
            "pairs": [{"text": a, "pair": b, "labels": pipeline([{"text": a, "text_pair": b}])[0]} for a, b in PAIRS],
        }
        if config.get("num_labels") == 1:
            scores = CrossEncoder(str(folder), device="cpu").predict(PAIRS, batch_size=1)
            expected["cross_encoder"] = [float(score) for score in scores]
        write(folder, expected)


def masked_lm():
    for name, family, tokenizer in [
        ("bert-masked-lm", "Bert", bert_tokenizer),
        ("roberta-masked-lm", "Roberta", roberta_tokenizer),
    ]:
        folder = make(name, family, "MaskedLM", tokenizer, seed=7,
                      tokenizer_settings={"model_max_length": 48, "clean_up_tokenization_spaces": family == "Bert"})
        pipeline = transformers.pipeline("fill-mask", model=str(folder), tokenizer=str(folder), top_k=4)
        mask = pipeline.tokenizer.mask_token
        expected = []
        for text in MASKED:
            text = text.replace("[MASK]", mask)
            found = pipeline(text)
            expected.append({"text": text, "masks": found if isinstance(found[0], list) else [found]})
        write(folder, expected)


def question_answering_models():
    make("bert-question-answering", "Bert", "QuestionAnswering", seed=11, tokenizer_settings={"model_max_length": 48})
    make("roberta-question-answering", "Roberta", "QuestionAnswering", roberta_tokenizer, seed=11,
         tokenizer_settings={"model_max_length": 48})


def answers():
    assert transformers.__version__.startswith("4."), transformers.__version__
    for folder in sorted(HERE.glob("*-question-answering")):
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, use_fast=True)
        model = transformers.AutoModelForQuestionAnswering.from_pretrained(folder, dtype=torch.float32).eval()
        pipeline = transformers.pipeline("question-answering", model=model, tokenizer=tokenizer)
        expected = []
        for question, context in QUESTIONS:
            for options in [{}, {"top_k": 3}, {"top_k": 2, "max_answer_len": 3}, {"top_k": 2, "handle_impossible_answer": True}]:
                found = pipeline(question=question, context=context, **options)
                found = found if isinstance(found, list) else [found]
                scores = [answer["score"] for answer in found]
                assert all(a - b > LEAST_MARGIN * a for a, b in zip(scores, scores[1:])), scores
                expected.append({"question": question, "context": context, **options, "answers": found})
        write(folder, expected)


if __name__ == "__main__":
    if sys.argv[1:] == ["question-answering"]:
        answers()
    else:
        shutil.rmtree(HERE, ignore_errors=True)
        token_classification()
        sequence_classification()
        masked_lm()
        question_answering_models()
