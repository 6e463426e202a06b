//! Letters as strokes, so that a picture needs no font of the machine.
//!
//! A glyph is a list of polylines on a grid 4 wide, with the line of capitals at 0, that of small letters at 2,
//! the base at 6 and descenders down to 8. Each pair of digits is a point, x before y; a space lifts the pen.

/// Width of a glyph and the gap behind it, in grid units.
pub const ADVANCE: f64 = 5.5;
/// From the line of capitals to the base line.
pub const HEIGHT: f64 = 6.0;

/// The strokes of a character; a box for one that has none.
pub fn strokes(character: char) -> impl Iterator<Item = Vec<(f64, f64)>> {
    let found = GLYPHS.iter().find(|(known, _)| *known == character);
    let text = found.map_or("0040460600", |(_, strokes)| strokes);
    text.split_whitespace().map(|stroke| {
        let digits: Vec<f64> = stroke.bytes().map(|b| f64::from(b - b'0')).collect();
        digits
            .chunks_exact(2)
            .map(|point| (point[0], point[1]))
            .collect()
    })
}

const GLYPHS: [(char, &str); 80] = [
    (' ', ""),
    ('0', "103041453616050110"),
    ('1', "112026 1636"),
    ('2', "0110304142050646"),
    ('3', "01103041423323 3344453616 1605"),
    ('4', "36300444"),
    ('5', "4000033344453616 0516"),
    ('6', "4130100105163645443313 0413"),
    ('7', "00404116"),
    ('8', "103041423313020110 1304051636454433"),
    ('9', "051636454130100102133342"),
    ('A', "0602204246 0444"),
    ('B', "00063645443303 3342413000"),
    ('C', "4130100105163645"),
    ('D', "0006264442 200042"),
    ('E', "40000646 0333"),
    ('F', "400006 0333"),
    ('G', "41301001051636454323"),
    ('H', "0006 4046 0343"),
    ('I', "1030 2026 1636"),
    ('J', "4045361605"),
    ('K', "0006 400346"),
    ('L', "000646"),
    ('M', "0600234046"),
    ('N', "06004640"),
    ('O', "103041453616050110"),
    ('P', "06003041423303"),
    ('Q', "103041453616050110 2446"),
    ('R', "06003041423303 2346"),
    ('S', "4130100102133344453616 0516"),
    ('T', "0040 2026"),
    ('U', "000516364540"),
    ('V', "002640"),
    ('W', "0016233640"),
    ('X', "0046 4006"),
    ('Y', "002340 2326"),
    ('Z', "00400646"),
    ('a', "12324346 441405163645"),
    ('b', "0006 0312324345361605"),
    ('c', "4332120305163645"),
    ('d', "4046 4332120305163645"),
    ('e', "04444332120305163645"),
    ('f', "40302126 0333"),
    ('g', "4332120305163645 4247381807"),
    ('h', "0006 0312324346"),
    ('i', "2226 2020"),
    ('j', "3237281807 3030"),
    ('k', "0006 320446"),
    ('l', "102026 1636"),
    ('m', "0602 03122326 23324346"),
    ('n', "0206 0312324346"),
    ('o', "123243453616050312"),
    ('p', "0208 0312324345361605"),
    ('q', "4248 4332120305163645"),
    ('r', "0206 03123243"),
    ('s', "433212031434453616 1605"),
    ('t', "20253646 0242"),
    ('u', "0205163645 4246"),
    ('v', "022642"),
    ('w', "0216243642"),
    ('x', "0246 4206"),
    ('y', "0226 4218"),
    ('z', "02420646"),
    ('.', "2626"),
    (',', "2617"),
    (':', "2323 2626"),
    (';', "2323 2617"),
    ('-', "0343"),
    ('+', "0343 2125"),
    ('=', "0242 0444"),
    ('_', "0747"),
    ('/', "4006"),
    ('\\', "0046"),
    ('%', "4006 0000 4646"),
    ('(', "30121436"),
    (')', "10323416"),
    ('[', "30101636"),
    (']', "10303616"),
    ('*', "2125 0244 4204"),
    ('#', "1115 3135 0242 0444"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_glyph_is_known_once_and_lies_on_the_grid() {
        for (i, (character, text)) in GLYPHS.iter().enumerate() {
            assert!(GLYPHS[..i].iter().all(|(other, _)| other != character));
            assert!(
                text.split(' ').all(|stroke| stroke.len() % 2 == 0),
                "{character}"
            );
            for (x, y) in strokes(*character).flatten() {
                assert!(
                    (0.0..=4.0).contains(&x) && (0.0..=8.0).contains(&y),
                    "{character}"
                );
            }
        }
        let letters = ('0'..='9').chain('a'..='z').chain('A'..='Z');
        assert!(
            letters
                .into_iter()
                .all(|c| GLYPHS.iter().any(|(known, _)| *known == c))
        );
    }
}
