//! Masking of RFC 6455 §5.3.

/// High bit of each byte of a word: set in every byte that is not ASCII.
const NOT_ASCII: u64 = 0x8080_8080_8080_8080;

/// Removes `mask` from `payload` in place and tells whether the result is all ASCII, which spares most texts a second pass for UTF-8.
pub(super) fn unmask(payload: &mut [u8], mask: [u8; 4]) -> bool {
    let [a, b, c, d] = mask;
    let mask = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut seen = 0;
    let (words, tail) = payload.as_chunks_mut::<8>();
    for word in words {
        let plain = u64::from_ne_bytes(*word) ^ mask;
        seen |= plain;
        *word = plain.to_ne_bytes();
    }
    let mut tail_seen = 0;
    for (byte, key) in tail.iter_mut().zip([a, b, c, d, a, b, c]) {
        *byte ^= key;
        tail_seen |= *byte;
    }
    seen & NOT_ASCII == 0 && tail_seen.is_ascii()
}

/// The mask for bytes that begin `offset` bytes into the payload.
pub(super) fn mask_at(mut mask: [u8; 4], offset: u64) -> [u8; 4] {
    mask.rotate_left((offset % 4) as usize);
    mask
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn unmasking_is_the_bytewise_xor_of_the_rfc(plain in proptest::collection::vec(any::<u8>(), 0..300), mask: [u8; 4], offset in 0_u64..9) {
            let mut masked: Vec<u8> = plain.iter().enumerate().map(|(i, b)| b ^ mask[(i + offset as usize) % 4]).collect();
            let ascii = unmask(&mut masked, mask_at(mask, offset));
            prop_assert_eq!(ascii, plain.is_ascii());
            prop_assert_eq!(masked, plain);
        }

        #[test]
        fn one_byte_beyond_ascii_is_seen_wherever_it_is(len in 1_usize..200, at: proptest::sample::Index, mask: [u8; 4]) {
            let mut bytes = vec![b'a'; len];
            prop_assert!(unmask(&mut bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect::<Vec<_>>(), mask));
            bytes[at.index(len)] = 0x80;
            prop_assert!(!unmask(&mut bytes.iter().zip(mask.iter().cycle()).map(|(b, m)| b ^ m).collect::<Vec<_>>(), mask));
        }
    }
}
