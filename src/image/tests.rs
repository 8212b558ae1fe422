use super::*;

const NOTE: u16 = 7;

fn image() -> Vec<u8> {
    let mut out = ImageWriter::default();
    out.section(NOTE, 1, |out| {
        "héllo".to_owned().write(out);
        vec![Some(1u32), None].write(out);
        out.sparse(&[0u64, 0, 9], &0);
    });
    out.section(MAY_BE_SKIPPED, 3, |out| out.raw(b"what nobody knows"));
    out.finish()
}

type Note = (String, Vec<Option<u32>>, [u64; 3]);

fn read(image: &[u8]) -> Result<Note, ImageError> {
    let mut sections = ImageReader::new(image)?;
    let mut note = None;
    while let Some(section) = sections.section()? {
        if section.tag == NOTE {
            let mut inside = section.of_version(1)?;
            let mut row = [0; 3];
            let (text, list) = Image::read(&mut inside)?;
            inside.sparse(&mut row)?;
            inside.end()?;
            note = Some((text, list, row));
        } else if !section.may_be_skipped() {
            return Err(ImageError::Section(section.tag));
        }
    }
    note.ok_or(ImageError::Missing(NOTE))
}

/// The image with another body, which it says to be its own.
fn with_body(body: &[u8]) -> Vec<u8> {
    let mut out = ImageWriter::default();
    out.raw(body);
    out.finish()
}

#[test]
fn what_was_written_is_read_and_what_nobody_needs_is_left_out() {
    let note = ("héllo".to_owned(), vec![Some(1), None], [0, 0, 9]);
    assert_eq!(read(&image()), Ok(note));
}

#[test]
fn whatever_is_cut_off_or_flipped_is_noticed() {
    let image = image();
    for end in 0..image.len() {
        assert!(read(&image[..end]).is_err(), "cut at {end}");
    }
    for at in 0..image.len() {
        for bit in 0..8 {
            let mut flipped = image.clone();
            flipped[at] ^= 1 << bit;
            assert!(read(&flipped).is_err(), "bit {bit} of byte {at}");
        }
    }
}

#[test]
fn error_says_what_is_wrong() {
    let good = image();
    let changed = |at: usize, byte: u8| {
        let mut changed = good.clone();
        changed[at] = byte;
        read(&changed)
    };
    assert_eq!(changed(0, b'R'), Err(ImageError::Magic));
    assert_eq!(changed(8, 2), Err(ImageError::Version(2)));
    let found = (good.len() - HEAD_BYTES) as u64;
    let said = found - 1;
    assert_eq!(
        changed(10, said as u8),
        Err(ImageError::Length { said, found })
    );
    let damaged = changed(good.len() - 1, 0);
    assert!(matches!(damaged, Err(ImageError::Checksum { .. })));

    let body = &good[HEAD_BYTES..];
    let body_with = |at: usize, byte: u8| {
        let mut body = body.to_vec();
        body[at] = byte;
        read(&with_body(&body))
    };
    assert_eq!(body_with(0, 8), Err(ImageError::Section(8)));
    let version = ImageError::SectionVersion {
        tag: NOTE,
        version: 9,
    };
    assert_eq!(body_with(2, 9), Err(version));
    assert_eq!(read(&with_body(&[])), Err(ImageError::Missing(NOTE)));
    for end in 1..body.len() {
        let cut = read(&with_body(&body[..end]));
        let is_whole = cut.is_ok() && matches!(body.len() - end, 29);
        assert!(
            is_whole || matches!(cut, Err(ImageError::Short { .. })),
            "cut at {end}: {cut:?}"
        );
    }
}

#[test]
fn length_that_cannot_be_costs_no_memory() {
    let mut out = ImageWriter::default();
    u64::MAX.write(&mut out);
    (1u64 << 40).write(&mut out);
    let body = &out.finish()[HEAD_BYTES..];
    for length in [&body[..8], &body[8..]] {
        let mut from = ImageReader { left: length };
        let list: Result<Vec<[u64; 64]>, _> = from.list::<Wide>().map(|list| {
            let wide = list.into_iter().map(|Wide(row)| row);
            wide.collect()
        });
        assert_eq!(list, Err(ImageError::Short { what: "a list" }));
    }
    let mut from = ImageReader { left: &[0; 64] };
    assert_eq!(from.room::<Wide>(64), 0, "64 bytes hold none of 512");
    assert_eq!(from.list::<Wide>().map(|list| list.len()), Ok(0));
}

/// Much memory, written as one byte.
struct Wide([u64; 64]);

impl Image for Wide {
    fn write(&self, out: &mut ImageWriter) {
        out.raw(&[self.0[0] as u8]);
    }

    fn read(from: &mut ImageReader<'_>) -> Result<Self, ImageError> {
        u8::read(from).map(|byte| Self([u64::from(byte); 64]))
    }
}
