//! SHA-256 (FIPS 180-4), for projections too large to keep in the tree.

/// The first 32 bits of the fractional part of a prime's root, exactly, in integers.
fn constants(count: usize, cubic: bool) -> Vec<u32> {
    let primes = (2u128..).filter(|n| (2..*n).take_while(|d| d * d <= *n).all(|d| n % d != 0));
    let root = |prime: u128| {
        // The largest r with r^k ≤ prime · 2^(32k).
        let fits = |r: u128| if cubic { r * r * r <= prime << 96 } else { r * r <= prime << 64 };
        (0..36).rev().fold(0u128, |r, bit| if fits(r | 1 << bit) { r | 1 << bit } else { r }) as u32
    };
    primes.take(count).map(root).collect()
}

pub fn sha256(message: &[u8]) -> String {
    let rounds = constants(64, true);
    let mut state = constants(8, false);
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64) - 8, 0);
    padded.extend((message.len() as u64 * 8).to_be_bytes());
    for block in padded.chunks_exact(64) {
        let mut w = [0u32; 64];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes(bytes.try_into().unwrap());
        }
        for t in 16..64 {
            let (a, b) = (w[t - 15], w[t - 2]);
            let low = a.rotate_right(7) ^ a.rotate_right(18) ^ (a >> 3);
            let high = b.rotate_right(17) ^ b.rotate_right(19) ^ (b >> 10);
            w[t] = w[t - 16].wrapping_add(low).wrapping_add(w[t - 7]).wrapping_add(high);
        }
        let mut s: [u32; 8] = state.clone().try_into().unwrap();
        for t in 0..64 {
            let high = s[4].rotate_right(6) ^ s[4].rotate_right(11) ^ s[4].rotate_right(25);
            let choice = (s[4] & s[5]) ^ (!s[4] & s[6]);
            let first = s[7].wrapping_add(high).wrapping_add(choice).wrapping_add(rounds[t]).wrapping_add(w[t]);
            let low = s[0].rotate_right(2) ^ s[0].rotate_right(13) ^ s[0].rotate_right(22);
            let majority = (s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]);
            s.rotate_right(1);
            s[4] = s[4].wrapping_add(first);
            s[0] = first.wrapping_add(low).wrapping_add(majority);
        }
        state.iter_mut().zip(s).for_each(|(total, word)| *total = total.wrapping_add(word));
    }
    state.iter().map(|word| format!("{word:08x}")).collect()
}
