//! How much memory a request takes once it is decoded, told while its bytes arrive.
//!
//! A message of two bytes becomes a struct of some hundred, so the size of a request says little
//! about the memory that its decoding takes. This walks the bytes as the decoder will, field by
//! field, and counts what the decoder would allocate. What is no message is refused here, because
//! the decoder allocates before it finds out.

use std::{collections::HashMap, error::Error, fmt, sync::LazyLock};

use prost_reflect::{Kind, MessageDescriptor};

use crate::document::POOL;

/// The bytes of a request, walked so far.
#[derive(Debug)]
pub struct Decoded {
    /// The message's kind; an index of [`SHAPES`].
    request: usize,
    /// The messages that the walk is inside of: kind, and where it ends.
    inside: Vec<(usize, u64)>,
    step: Step,
    /// Bytes of the message so far.
    at: u64,
    /// Memory, in bytes.
    takes: u64,
}

/// Bytes that are no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAMessage(&'static str);

impl fmt::Display for NotAMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a message: {}", self.0)
    }
}

impl Error for NotAMessage {}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// What gRPC writes before a message: whether it is compressed, and its length.
    Prefix { read: u8, length: u32 },
    /// The key of a field.
    Key(Varint),
    /// A number that is skipped.
    Number(Varint),
    /// The length of a field.
    Length { field: u32, value: Varint },
    /// Bytes of no interest.
    Skip(u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Varint {
    value: u64,
    shift: u32,
}

impl Varint {
    /// Adds a byte; the value is returned with the last.
    fn add(&mut self, byte: u8) -> Result<Option<u64>, NotAMessage> {
        if self.shift > 63 {
            return Err(NotAMessage("a number is too long"));
        }
        self.value |= u64::from(byte & 0x7f) << self.shift;
        self.shift += 7;
        Ok((byte & 0x80 == 0).then_some(self.value))
    }
}

/// What the decoder allocates for a field each time that it occurs.
#[derive(Clone, Copy, Debug)]
struct Field {
    /// Bytes beside those of the field's own text.
    each: u64,
    /// For each byte of a text or a packed list.
    per_byte: u64,
    /// The message that the field holds.
    message: Option<usize>,
}

/// The kinds of message, each an index.
#[derive(Debug, Default)]
struct Shapes {
    /// The fields of each kind, by their numbers.
    all: Vec<HashMap<u32, Field>>,
    /// By a message's name.
    known: HashMap<String, usize>,
    /// The kind of a call's request, by the call's path.
    requests: HashMap<String, usize>,
}

static SHAPES: LazyLock<Shapes> = LazyLock::new(Shapes::new);

/// A text or a list without what it points to.
const POINTER: u64 = 24;
/// What the allocator adds to a block.
const BLOCK: u64 = 16;
/// The decoder refuses more messages within each other.
const DEEPEST: usize = 100;

/// The size of a message's struct, at least.
fn size(message: &MessageDescriptor) -> u64 {
    let fields = message.fields().map(|field| match field.kind() {
        _ if field.is_list() || field.is_map() => 2 * POINTER,
        Kind::Message(inner) => size(&inner) + 8,
        Kind::String | Kind::Bytes => POINTER,
        _ => 16,
    });
    fields.sum()
}

impl Shapes {
    fn new() -> Self {
        let mut shapes = Self::default();
        for service in POOL.services() {
            for method in service.methods() {
                let path = format!("/{}/{}", service.full_name(), method.name());
                let request = shapes.of(&method.input());
                shapes.requests.insert(path, request);
            }
        }
        shapes
    }

    fn of(&mut self, message: &MessageDescriptor) -> usize {
        if let Some(known) = self.known.get(message.full_name()) {
            return *known;
        }
        let index = self.all.len();
        self.all.push(HashMap::new());
        self.known.insert(message.full_name().to_owned(), index);
        for field in message.fields() {
            let inner = match field.kind() {
                Kind::Message(inner) => Some((self.of(&inner), size(&inner))),
                _ => None,
            };
            let element = match (&field.kind(), inner) {
                (_, Some((_, size))) => size,
                (Kind::String | Kind::Bytes, None) => POINTER,
                (_, None) => 8,
            };
            let is_text = matches!(field.kind(), Kind::String | Kind::Bytes);
            let shape = Field {
                // A list that grows has up to twice the room that it needs.
                each: match field.is_list() || field.is_map() {
                    true => 2 * element + BLOCK,
                    false => 0,
                } + if is_text { BLOCK } else { 0 },
                per_byte: if is_text || inner.is_some() { 1 } else { 16 },
                message: inner.map(|(index, _)| index),
            };
            if let Some(fields) = self.all.get_mut(index) {
                fields.insert(field.number(), shape);
            }
        }
        index
    }
}

impl Decoded {
    /// The request of a call, before its first byte; none when there is no such call.
    pub fn of(path: &str) -> Option<Self> {
        Some(Self {
            request: *SHAPES.requests.get(path)?,
            inside: Vec::new(),
            step: Step::Prefix { read: 0, length: 0 },
            at: 0,
            takes: 0,
        })
    }

    /// Walks the next bytes, with gRPC's framing, and returns how much memory all so far take: the
    /// bytes themselves and what is decoded from them.
    ///
    /// # Errors
    /// When they are no message.
    pub fn walk(&mut self, bytes: &[u8]) -> Result<u64, NotAMessage> {
        self.takes += bytes.len() as u64;
        let mut rest = bytes;
        while let Some((byte, after)) = rest.split_first() {
            if let Step::Skip(left) = self.step {
                let skipped = left.min(rest.len() as u64);
                rest = rest.get(skipped as usize..).unwrap_or_default();
                self.at += skipped;
                self.step = Step::Skip(left - skipped);
                if left == skipped {
                    self.next()?;
                }
                continue;
            }
            rest = after;
            self.byte(*byte)?;
        }
        Ok(self.takes)
    }

    fn byte(&mut self, byte: u8) -> Result<(), NotAMessage> {
        if let Step::Prefix { read, length } = self.step {
            if read == 0 && byte != 0 {
                return Err(NotAMessage("it is compressed"));
            }
            let length = length << 8 | u32::from(byte);
            self.step = Step::Prefix {
                read: read + 1,
                length,
            };
            if read == 4 {
                self.at = 0;
                self.inside = vec![(self.request, u64::from(length))];
                self.next()?;
            }
            return Ok(());
        }
        self.at += 1;
        match &mut self.step {
            Step::Key(key) => {
                let Some(key) = key.add(byte)? else {
                    return Ok(());
                };
                let field = u32::try_from(key >> 3).map_err(|_| NotAMessage("a field's number"))?;
                self.step = match key & 7 {
                    0 => Step::Number(Varint::default()),
                    1 => Step::Skip(8),
                    2 => Step::Length {
                        field,
                        value: Varint::default(),
                    },
                    5 => Step::Skip(4),
                    _ => return Err(NotAMessage("a kind of field that is not used")),
                };
                if key & 7 != 2 {
                    self.takes += self.field(field).map_or(0, |it| it.each);
                }
            }
            Step::Number(number) => {
                if number.add(byte)?.is_some() {
                    self.next()?;
                }
            }
            Step::Length { field, value } => {
                let field = *field;
                if let Some(length) = value.add(byte)? {
                    self.enter(field, length)?;
                }
            }
            Step::Prefix { .. } | Step::Skip(_) => {}
        }
        Ok(())
    }

    fn field(&self, number: u32) -> Option<Field> {
        let (kind, _) = self.inside.last()?;
        SHAPES.all.get(*kind)?.get(&number).copied()
    }

    /// Begins a field that has a length.
    fn enter(&mut self, number: u32, length: u64) -> Result<(), NotAMessage> {
        let end = self.at.checked_add(length);
        let within = self.inside.last().map(|(_, end)| *end);
        let Some(end) = end.filter(|end| within.is_some_and(|within| *end <= within)) else {
            return Err(NotAMessage("a field is longer than what it is in"));
        };
        let field = self.field(number);
        if let Some(field) = field {
            self.takes += field.each + field.per_byte * length;
        }
        if let Some(Field {
            message: Some(message),
            ..
        }) = field
        {
            if self.inside.len() >= DEEPEST {
                return Err(NotAMessage("too many messages within each other"));
            }
            self.inside.push((message, end));
            return self.next();
        }
        self.step = Step::Skip(length);
        if length == 0 {
            self.next()?;
        }
        Ok(())
    }

    /// Goes on after a field: to the next, out of messages that end here, or to the next message.
    fn next(&mut self) -> Result<(), NotAMessage> {
        while let Some((_, end)) = self.inside.last() {
            if self.at < *end {
                self.step = Step::Key(Varint::default());
                return Ok(());
            }
            if self.at > *end {
                return Err(NotAMessage("a field is longer than what it is in"));
            }
            self.inside.pop();
        }
        self.step = Step::Prefix { read: 0, length: 0 };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use prost::Message as _;

    use super::*;
    use crate::v1;

    const PLAN: &str = "/wardline.v1.Segmentation/Plan";

    fn framed(message: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0];
        bytes.extend((message.len() as u32).to_be_bytes());
        bytes.extend(message);
        bytes
    }

    fn takes(message: &[u8]) -> Result<u64, NotAMessage> {
        Decoded::of(PLAN).unwrap().walk(&framed(message))
    }

    fn plan(policy: v1::Policy) -> Vec<u8> {
        let policy = Some(policy);
        let request = v1::PlanRequest {
            policy,
            ..v1::PlanRequest::default()
        };
        request.encode_to_vec()
    }

    fn device(at: usize) -> v1::Device {
        v1::Device {
            name: format!("pump-{at}"),
            zone: "pumps".to_owned(),
            macs: vec!["02:00:00:00:01:01".to_owned()],
            addresses: vec!["10.20.1.11".to_owned()],
            ..v1::Device::default()
        }
    }

    #[test]
    fn empty_rules_take_what_their_structs_take() {
        let count = 10_000;
        let bytes = plan(v1::Policy {
            rules: vec![v1::Rule::default(); count],
            ..v1::Policy::default()
        });
        let takes = takes(&bytes).unwrap();
        let least = (count * size_of::<v1::Rule>()) as u64;
        assert!(
            (least..6 * least).contains(&takes),
            "{takes}, {least} at least"
        );
        assert!(
            takes > 64 * bytes.len() as u64,
            "{takes} for {} bytes",
            bytes.len()
        );
    }

    #[test]
    fn a_real_policy_takes_a_few_times_its_bytes() {
        let bytes = plan(v1::Policy {
            devices: (0..1000).map(device).collect(),
            ..v1::Policy::default()
        });
        let takes = takes(&bytes).unwrap();
        let ratio = takes / bytes.len() as u64;
        let least = 1000 * size_of::<v1::Device>() as u64;
        assert!(
            takes > least && ratio < 30,
            "{takes}, {ratio} times its bytes"
        );
    }

    #[test]
    fn where_the_bytes_are_cut_makes_no_difference() {
        let bytes = framed(&plan(v1::Policy {
            devices: (0..20).map(device).collect(),
            rules: vec![v1::Rule::default(); 20],
            ..v1::Policy::default()
        }));
        let whole = Decoded::of(PLAN).unwrap().walk(&bytes).unwrap();
        for length in [1, 2, 3, 7, 64] {
            let mut decoded = Decoded::of(PLAN).unwrap();
            let mut last = 0;
            for piece in bytes.chunks(length) {
                last = decoded.walk(piece).unwrap();
            }
            assert_eq!(last, whole, "in pieces of {length}");
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        // A message that says to be longer than the one that it is in, which the decoder would read
        // to its end before it complains.
        assert!(takes(&[0x0a, 0x02, 0x0a, 0x10, 1, 1]).is_err());
        // Groups, numbers that do not end, fields longer than the request.
        assert!(takes(&[0x0b]).is_err());
        assert!(takes(&[0x80; 12]).is_err());
        assert!(takes(&[0x0a, 0x7f]).is_err());
        let mut compressed = framed(&[]);
        compressed[0] = 1;
        assert!(Decoded::of(PLAN).unwrap().walk(&compressed).is_err());
        assert!(Decoded::of("/wardline.v1.Segmentation/None").is_none());
    }
}
