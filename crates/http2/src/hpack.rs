//! Reads header blocks, and writes them (RFC 7541).
//!
//! **Limits**: the table holds 4 KiB. A string is as long as its bytes in the block say, or by Huffman's code
//! at most 8/5 of that, so the block's limit is theirs.

mod huffman;
mod table;
mod write;

pub(crate) use table::{Field, Name};
pub(crate) use write::Writer;

use table::{TABLE_BYTES_MAX, Table};

/// The state of one peer's header blocks.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    table: Table,
}

/// A block that cannot be decoded. The connection must end, because later blocks depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Undecodable;

impl Reader {
    /// Passes each field of a block to `each`.
    pub(crate) fn read(
        &mut self,
        mut block: &[u8],
        mut each: impl FnMut(&Field),
    ) -> Result<(), Undecodable> {
        let mut may_resize = true;
        while let Some(first) = block.first().copied() {
            if first & 0b1110_0000 == 0b0010_0000 {
                // A new size of the table, which stands in front of the fields (section 4.2).
                let size = integer(&mut block, 5)?;
                if !may_resize || size > TABLE_BYTES_MAX {
                    return Err(Undecodable);
                }
                self.table.resize(size);
                continue;
            }
            may_resize = false;
            if first & 0b1000_0000 != 0 {
                let number = integer(&mut block, 7)?;
                each(self.table.get(number).ok_or(Undecodable)?);
                continue;
            }
            let is_kept = first & 0b0100_0000 != 0;
            let number = integer(&mut block, if is_kept { 6 } else { 4 })?;
            let field = if number == 0 {
                let name = Field::named(&string(&mut block)?);
                name.with(string(&mut block)?)
            } else {
                let value = string(&mut block)?;
                self.table.get(number).ok_or(Undecodable)?.with(value)
            };
            each(&field);
            if is_kept {
                self.table.add(field);
            }
        }
        Ok(())
    }

    /// While it is the same, the same block means the same fields.
    pub(crate) const fn changes(&self) -> u64 {
        self.table.changes()
    }
}

/// Reads an integer whose first bits are the last `prefix` of the first byte (section 5.1).
fn integer(block: &mut &[u8], prefix: u32) -> Result<usize, Undecodable> {
    let most = (1_usize << prefix) - 1;
    let mut value = usize::from(byte(block)?) & most;
    if value < most {
        return Ok(value);
    }
    // More bytes would say a length that no block has.
    for shift in [0, 7, 14] {
        let next = byte(block)?;
        value += usize::from(next & 0x7f) << shift;
        if next & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Undecodable)
}

fn byte(block: &mut &[u8]) -> Result<u8, Undecodable> {
    let (first, rest) = block.split_first().ok_or(Undecodable)?;
    *block = rest;
    Ok(*first)
}

/// Reads a string (section 5.2).
fn string(block: &mut &[u8]) -> Result<Vec<u8>, Undecodable> {
    let is_huffman = block.first().is_some_and(|first| first & 0x80 != 0);
    let length = integer(block, 7)?;
    let (text, rest) = block.split_at_checked(length).ok_or(Undecodable)?;
    *block = rest;
    if !is_huffman {
        return Ok(text.to_vec());
    }
    let mut decoded = Vec::with_capacity(text.len() * 8 / 5);
    huffman::decode(text, &mut decoded).ok_or(Undecodable)?;
    Ok(decoded)
}

#[cfg(test)]
mod tests;
