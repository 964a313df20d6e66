//! Seeds that found a defect, each with its story. They are played by their number, so that a change of the
//! way in which scenarios are drawn may turn one into another story; those that must stay are written out.
