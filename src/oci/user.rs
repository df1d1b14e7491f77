//! The user that an image's program runs as.

use crate::error::Error;
use crate::oci::refusal::{refused, shown};
use crate::oci::tree::{Content, Tree};

/// Upper bound on the bytes of a list of users or groups.
const LIST_MAX: u64 = 1 << 20;

/// Returns the numbers of a user and a group, of which each may be given by its name: "USER" or "USER:GROUP".
/// Without a group, it is that of the user, or root's.
pub fn resolved(user: &str, tree: &Tree) -> Result<Option<(u32, u32)>, Error> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let passwd = list(tree, "passwd")?;
    let known = find(&passwd, name, &[2, 3]);
    let number = known.as_ref().map(|it| it[0]);
    let number = number_in(name)
        .or(number)
        .ok_or_else(|| unknown(user, "passwd"))?;
    let group = match group.filter(|group| !group.is_empty()) {
        None => known.map_or(0, |it| it[1]),
        Some(group) => {
            let list = list(tree, "group")?;
            let known = find(&list, group, &[2]).map(|it| it[0]);
            let number = number_in(group).or(known);
            number.ok_or_else(|| unknown(user, "group"))?
        }
    };
    Ok(Some((number, group)))
}

/// Reads the number of a user or a group. The greatest stands for none (chown(2), setresuid(2)).
fn number_in(text: &str) -> Option<u32> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|_| is_plain);
    number.filter(|&number| number != u32::MAX)
}

fn unknown(user: &str, list: &str) -> Error {
    refused(
        format!(
            "its user is {}, which is no number that there can be, and its /etc/{list} does not tell the number of that",
            shown(user)
        ),
        "make the image with a user whose number is known, for example USER 1000:1000",
    )
}

/// Reads a list in /etc, which is empty if there is none.
fn list(tree: &Tree, name: &str) -> Result<String, Error> {
    let path = [b"etc".to_vec(), name.as_bytes().to_vec()];
    let found = tree.resolve(&path).map(|id| &tree.node(id).content);
    let Ok(Content::File(part)) = found else {
        return Ok(String::new());
    };
    if part.size > LIST_MAX {
        return Err(refused(
            format!("its /etc/{name} has more than {LIST_MAX} bytes"),
            "make the image with fewer users and groups",
        ));
    }
    let mut bytes = vec![0; part.size as usize];
    part.read_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Finds the line of a name, or of a number. Returns the numbers in these fields, if all are numbers.
fn find(list: &str, name: &str, fields: &[usize]) -> Option<Vec<u32>> {
    let lines = || list.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let by = |field: usize| lines().find(|line| line.get(field) == Some(&name));
    let line = by(0).or_else(|| by(2))?;
    let numbers = fields.iter().map(|&field| number_in(line.get(field)?));
    numbers.collect()
}
