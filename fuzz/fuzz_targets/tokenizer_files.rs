//! The files of a tokenizer. An input is their contents in the order of [`FILES`], separated by NUL bytes, which no text has (the last
//! is no text, and has the rest); a file of no bytes is not there.
#![no_main]

use fewbit_fuzz::{Scratch, small_bert};
use fewbit_model::EncoderSpec;
use fewbit_model::tokenization::{
    AlignedTokens, PairTruncation, TextSettings, TextTokenizer, Window,
};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

const FILES: [&str; 6] = [
    "tokenizer.json",
    "vocab.txt",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "tokenizer.model",
];

static SCRATCH: LazyLock<Scratch> = LazyLock::new(Scratch::new);

static SPEC: LazyLock<EncoderSpec> = LazyLock::new(|| EncoderSpec {
    vocab_size: 1000,
    ..EncoderSpec::from_checkpoint(&small_bert()).expect("a golden checkpoint")
});

static TEXTS: LazyLock<Vec<String>> = LazyLock::new(|| {
    let long: Vec<String> = (0..200).map(|word| format!("word{word}")).collect();
    [
        "",
        " ",
        "The quick brown fox, it jumps; over 13 lazy dogs!",
        "Tschüß… naïve ÅNGSTRÖM\u{301}\u{ad} \u{200d}👩‍👩‍👧 한국어 中文 हिन्दी \u{0} [MASK] <s>",
        "\u{fffd}\t\r\n\u{85}\u{2028}ﬁ ligature ½",
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([long.join(" "), "antidis".repeat(20)])
    .collect()
});

/// As many of everything as there are tokens, and places within the texts.
fn check(tokens: &AlignedTokens, texts: &[&str], most: usize) {
    let count = tokens.token_ids.len();
    assert!((1..=most).contains(&count), "{count} tokens");
    assert_eq!(tokens.token_type_ids.len(), count);
    assert_eq!(tokens.origins.len(), count);
    for origin in &tokens.origins {
        match origin.text {
            Some(text) => assert!(
                texts[text].get(origin.bytes.clone()).is_some(),
                "{origin:?}"
            ),
            None => assert!(origin.bytes.is_empty(), "{origin:?}"),
        }
    }
}

fuzz_target!(|input: &[u8]| {
    let mut contents = input.splitn(FILES.len(), |&byte| byte == 0);
    for file in FILES {
        match contents.next() {
            None | Some([]) => SCRATCH.remove(file),
            Some(content) => _ = SCRATCH.write(file, content),
        }
    }
    let other = TextSettings {
        max_seq_length: Some(8),
        lowercase: true,
    };
    for settings in [TextSettings::default(), other] {
        let tokenizer = match TextTokenizer::open(SCRATCH.path(), &SPEC, settings) {
            Ok(tokenizer) => tokenizer,
            Err(error) => {
                let text = error.to_string();
                assert!(
                    text.contains(SCRATCH.path().to_str().expect("UTF-8")),
                    "{text}"
                );
                continue;
            }
        };
        let most = tokenizer.max_tokens();
        assert!(
            most <= settings
                .max_seq_length
                .unwrap_or(usize::MAX)
                .min(SPEC.positions.max_tokens())
        );
        for text in TEXTS.iter() {
            let Ok(tokens) = tokenizer.tokenize(text) else {
                continue;
            };
            assert!(
                (1..=most).contains(&tokens.token_ids.len()),
                "{} tokens",
                tokens.token_ids.len()
            );
            assert_eq!(tokens.token_type_ids.len(), tokens.token_ids.len());
            assert!(
                tokens
                    .token_ids
                    .iter()
                    .all(|&id| (id as usize) < SPEC.vocab_size),
                "{tokens:?}"
            );
            assert!(
                tokens
                    .token_type_ids
                    .iter()
                    .all(|&id| (id as usize) < SPEC.token_types),
                "{tokens:?}"
            );
            assert_eq!(tokenizer.tokenize(text).expect("it worked before"), tokens);
            let aligned = tokenizer
                .tokenize_aligned(text)
                .expect("it worked without offsets");
            assert_eq!(aligned.token_ids, tokens.token_ids);
            assert_eq!(aligned.token_type_ids, tokens.token_type_ids);
            check(&aligned, &[text], most);
        }
        for (first, second) in TEXTS.iter().zip(TEXTS.iter().rev()) {
            for truncation in [
                PairTruncation::LongestFirst,
                PairTruncation::OnlyFirst,
                PairTruncation::OnlySecond,
            ] {
                if let Ok(pair) = tokenizer.tokenize_pair(first, second, truncation) {
                    check(&pair, &[first, second], most);
                }
            }
            let window = Window {
                max_tokens: most,
                stride: 2,
            };
            for part in tokenizer
                .tokenize_windows(first, second, window)
                .iter()
                .flatten()
            {
                check(part, &[first, second], most);
            }
        }
    }
});
